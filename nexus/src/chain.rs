//! An error with all that caused it, on one line of the log. The log's JSON form would keep only the outermost error.

use std::error::Error;
use std::fmt;

/// Shows `read the log: connect to the database: connection refused`.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write!(line, "{said}")?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat the cause in their own words.
            if !said.ends_with(&text) {
                write!(line, ": {text}")?;
            }
            said = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("read the log")]
        ReadLog(#[source] io::Error),
        #[error("read the log: {0}")]
        Repeating(#[source] io::Error),
        #[error("do more")]
        DoMore(#[source] Box<Self>),
    }

    #[test]
    fn every_cause_is_named_in_its_order() {
        let error = Outer::DoMore(Box::new(Outer::ReadLog(io::Error::other("connection refused"))));
        assert_eq!(Chain(&error).to_string(), "do more: read the log: connection refused");
    }

    #[test]
    fn a_cause_that_the_error_repeats_is_named_once() {
        let error = Outer::Repeating(io::Error::other("connection refused"));
        assert_eq!(Chain(&error).to_string(), "read the log: connection refused");
    }
}

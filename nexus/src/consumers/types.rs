//! Patterns over event types as one regular expression of Postgres, so that also a type that this pod does not know yet
//! is found. Pure.

use crate::events::Pattern;

/// Matches the types, each followed by a dot, that one of the patterns matches.
pub(super) fn regular_expression(patterns: &[Pattern]) -> String {
    let alternatives: Vec<String> = patterns.iter().map(|pattern| alternative(&pattern.to_string())).collect();
    format!("^(?:{})$", alternatives.join("|"))
}

/// Each segment takes its dot with it, so that one that stands for no words at all leaves none behind.
fn alternative(pattern: &str) -> String {
    let segment = |segment: &str| match segment {
        "*" => r"[^.]+\.".to_owned(),
        "**" => r"(?:[^.]+\.)*".to_owned(),
        // A word has nothing that means something in an expression.
        word => format!(r"{word}\."),
    };
    pattern.split('.').map(segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_segment_becomes_an_expression_with_its_dot() {
        let patterns = ["wallet.*", "**", "a.**.b-c_1"].map(|text| text.parse().expect("the test gives patterns"));
        let wanted = r"^(?:wallet\.[^.]+\.|(?:[^.]+\.)*|a\.(?:[^.]+\.)*b-c_1\.)$";
        assert_eq!(regular_expression(&patterns), wanted);
    }
}

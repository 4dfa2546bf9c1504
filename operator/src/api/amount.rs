//! A Kubernetes quantity as the user writes it. Kept as text so that it is never rewritten; compared by value.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A quantity such as `20Gi` or `500m`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Amount(
    #[schemars(
        length(min = 1, max = 20),
        regex(pattern = r"^[0-9]{1,15}(\.[0-9]{1,3})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$")
    )]
    String,
);

impl Amount {
    /// A quantity from its text, unchecked; `thousandths` says whether it is one.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value in thousandths of one (of a byte, of a core), or `None` where the text is no quantity.
    /// Thousandths because `m` is the smallest suffix that the schema admits.
    pub fn thousandths(&self) -> Option<u128> {
        let digits_end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, suffix) = self.0.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || whole.len() > 15 || fraction.is_empty() || fraction.len() > 3 {
            return None;
        }
        let fraction = format!("{fraction:0<3}").parse::<u128>().ok()?;
        let thousandths = whole.parse::<u128>().ok()? * 1000 + fraction;
        Some(match suffix {
            "m" => thousandths / 1000,
            _ => thousandths * factor(suffix)?,
        })
    }

    /// The value in whole units, such as bytes.
    pub fn units(&self) -> Option<u128> {
        self.thousandths().map(|thousandths| thousandths / 1000)
    }
}

fn factor(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::Amount;

    #[test]
    fn an_amount_is_compared_by_value_and_not_by_text() {
        let cases = [("1Gi", 1 << 30), ("1024Mi", 1 << 30), ("1.5k", 1500), ("2", 2), ("1P", 1_000_000_000_000_000)];
        for (text, units) in cases {
            assert_eq!(Amount::new(text).units(), Some(units), "{text}");
        }
        assert_eq!(Amount::new("500m").thousandths(), Some(500));
    }

    #[test]
    fn what_is_no_quantity_has_no_value() {
        for text in ["", "Gi", "1gi", "-1", "1.Gi", "1.2345", "1 Gi", "1e3", "9999999999999999"] {
            assert_eq!(Amount::new(text).thousandths(), None, "{text}");
        }
    }
}

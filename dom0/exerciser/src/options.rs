// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel's command line asks for: `xenits.test=<scenario>[,name=value...]`.

use std::collections::BTreeMap;

/// The prefix of our word on the kernel's command line.
const WORD: &str = "xenits.test=";

/// A scenario with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name of the scenario.
    pub scenario: String,
    values: BTreeMap<String, String>,
}

impl Options {
    /// Finds our word on a command line. The last one wins, as with the kernel's own parameters.
    ///
    /// # Errors
    /// There is none, its scenario is empty, or an option has no `=`.
    pub fn from_cmdline(line: &str) -> Result<Self, String> {
        let word = line
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(WORD))
            .next_back()
            .ok_or_else(|| format!("the kernel's command line has no {WORD}<scenario>"))?;
        let mut parts = word.split(',');
        let scenario = parts.next().unwrap_or_default().to_owned();
        if scenario.is_empty() {
            return Err(format!("{WORD} names no scenario"));
        }
        let mut values = BTreeMap::new();
        for part in parts {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("option '{part}' has no value"))?;
            values.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self { scenario, values })
    }

    /// The text of an option.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A number, or `default` if the option is absent.
    ///
    /// # Errors
    /// The option is there, but is no decimal number.
    pub fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        self.values.get(name).map_or(Ok(default), |value| {
            value.parse().map_err(|_| format!("option {name}={value} is not a number"))
        })
    }

    /// Options that are not in `known`: a misspelt option must not pass for a default.
    pub fn unknown(&self, known: &[&str]) -> Vec<String> {
        self.values.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_scenario_and_options() {
        let options =
            Options::from_cmdline("console=hvc0 xenits.test=smoke,reads=12,key=L rdinit=/init");
        let options = options.expect("parses");
        assert_eq!(options.scenario, "smoke");
        assert_eq!(options.number("reads", 5), Ok(12));
        assert_eq!(options.number("absent", 5), Ok(5));
        assert_eq!(options.text("key"), Some("L"));
        assert_eq!(options.unknown(&["key"]), ["reads"]);
    }

    #[test]
    fn last_word_wins() {
        let options = Options::from_cmdline("xenits.test=a xenits.test=b").expect("parses");
        assert_eq!(options.scenario, "b");
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        assert!(Options::from_cmdline("console=hvc0").is_err());
        assert!(Options::from_cmdline("xenits.test=").is_err());
        assert!(Options::from_cmdline("xenits.test=smoke,reads").is_err());
        let options = Options::from_cmdline("xenits.test=smoke,reads=many").expect("parses");
        assert!(options.number("reads", 1).is_err());
    }
}

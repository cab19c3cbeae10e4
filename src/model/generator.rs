//! A generator: from 8-bit mu-law tokens to the logits of the next one.
//!
//! `embedding [256, d] → backbone → norm → head [256, d]`; row t sees tokens 0..=t and predicts token t + 1 (SaShiMi,
//! arXiv 2202.09729, §4). With `tied` the head is the embedding's table. With classes a token is `sample + V·class` of V samples, and a second table's row, of
//! the class, is added at every row: a class may change while a sound goes on. The last of them may be of sound without a class.

use super::backbone::backbone;
use super::config::GeneratorConfig;
use crate::plan::{Act, Plan, PlanBuilder};
use crate::{Error, Result};

/// The tokens of 8-bit mu-law.
const MU_LAW: usize = 256;
/// Of the first values of classes' rows. A class is 3 bits of a clip's 14,000: at 0.02, as tokens have it, the rows of ten digits grew alike, and
/// what was made was of no class (`bench-records/2026-11-27-h100`).
const CLASS_DEVIATION: f32 = 0.25;

impl GeneratorConfig {
    /// Refuses a generator of other tokens than mu-law's.
    pub fn of_mu_law(&self) -> Result<()> {
        if self.vocabulary == MU_LAW {
            return Ok(());
        }
        let got = format!("one of {} tokens", self.vocabulary);
        Err(Error::input("model", format!("a generator of mu-law's {MU_LAW} tokens"), got))
    }

    /// How many classes there are, the nameless one among them; 0 where all sound is of one kind.
    pub fn class_count(&self) -> usize {
        self.classes.len() + usize::from(self.nameless)
    }

    /// The number of the class that a file of this stem is of: the one whose name it begins with, the longest of several, for «sixteen» is
    /// not «six»; that without a name where none fits and the model has one; 0 where the model has no classes.
    pub fn class_of(&self, stem: &str) -> Result<usize> {
        if self.classes.is_empty() {
            return Ok(0);
        }
        let fits = self.classes.iter().enumerate().filter(|(_, class)| stem.starts_with(class.as_str()));
        let longest = fits.max_by_key(|(_, class)| class.len()).map(|(class, _)| class);
        let longest = longest.or(self.nameless.then_some(self.classes.len()));
        let expected = || format!("a name that begins with one of {}", self.classes.join(", "));
        longest.ok_or_else(|| Error::input("file", expected(), stem))
    }
}

/// The generator's plan.
pub fn plan(config: &GeneratorConfig) -> Result<Plan> {
    let Some(outermost) = config.tiers.first() else {
        return Err(Error::input("model config: tiers", "at least one", "none"));
    };
    let mut names = config.classes.clone();
    names.sort();
    names.dedup();
    // They become parts of file names.
    let bad = |name: &String| {
        matches!(name.as_str(), "" | "." | "..")
            || name.contains(['/', '\\'])
            || name.contains(char::is_control)
    };
    if names.len() < config.classes.len() || names.iter().any(bad) {
        let expected = "names without slashes, each once";
        return Err(Error::input("model config: classes", expected, format!("{:?}", config.classes)));
    }
    if config.nameless && config.classes.is_empty() {
        return Err(Error::input("model config: nameless", "classes beside the one without a name", "none"));
    }
    let mut b = PlanBuilder::new();
    let tables = [("embedding", config.vocabulary, 0.02), ("class", config.class_count(), CLASS_DEVIATION)];
    let tables = if config.classes.is_empty() { &tables[..1] } else { &tables[..] };
    let x = b.embed_all(tables, outermost.d_model)?;
    let y = backbone(&mut b, "", x, &config.tiers, Some(outermost.norm))?;
    let logits = match b.find_param("embedding.weight") {
        Some(table) if config.tied => b.linear_tied("head", y, table)?,
        _ => b.linear("head", y, config.vocabulary, true, Act::None)?,
    };
    b.build(logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Input;

    fn parameters(tied: bool, outer: usize, centre: &str) -> (usize, Plan) {
        let s4d = r#""mixer": {"kind": "s4d", "d_state": 32}, "feed_forward": 2"#;
        let text = format!(
            r#"{{"rate": 16000, "tied": {tied}, "tiers": [
                {{"d_model": 64, "blocks": {outer}, {s4d}}},
                {{"d_model": 128, "blocks": {outer}, "pool": 4, {s4d}}},
                {{"d_model": 256, "blocks": 8, "pool": 4, {centre}}}]}}"#
        );
        let plan = plan(&serde_json::from_str(&text).unwrap()).unwrap();
        (plan.param_count(), plan)
    }

    #[test]
    fn classes_have_names_that_files_can_bear() {
        let with = |classes: &str| {
            let tiers = r#"[{"d_model": 4, "blocks": 1, "mixer": {"kind": "mamba"}}]"#;
            let text = format!(r#"{{"rate": 8000, "classes": {classes}, "tiers": {tiers}}}"#);
            plan(&serde_json::from_str(&text).unwrap()).map(|plan| plan.input).map_err(|e| e.to_string())
        };
        assert_eq!(with(r#"["zero", "one"]"#), Ok(Input::Tokens(512)));
        assert_eq!(with(r#"["zero", "one"], "nameless": true"#), Ok(Input::Tokens(768)));
        assert!(with(r#"[], "nameless": true"#).unwrap_err().contains("beside the one without a name"));
        for classes in
            [r#"["a", "a"]"#, r#"[""]"#, r#"["../a"]"#, r#"["a\\b"]"#, r#"[".."]"#, r#"["a\u0000"]"#]
        {
            assert!(with(classes).unwrap_err().contains("names without slashes, each once"), "{classes}");
        }
    }

    #[test]
    fn a_name_tells_the_longest_class_that_it_begins_with() {
        let text = r#"{"rate": 8000, "classes": ["six", "sixteen", "two"], "tiers": []}"#;
        let config: GeneratorConfig = serde_json::from_str(text).unwrap();
        let of = |stem| config.class_of(stem).map_err(|e| e.to_string());
        assert_eq!((of("six-3"), of("sixteen-1"), of("two")), (Ok(0), Ok(1), Ok(2)));
        assert!(of("ten").unwrap_err().contains("begins with one of six, sixteen, two, got ten"));
    }

    #[test]
    fn the_size_of_the_published_generator() {
        // Tiers 64/128/256, pool 4 and 4, eight S4D blocks each way outside and eight Mamba blocks in the centre: 6.2 million.
        let (count, plan) = parameters(false, 8, r#""mixer": {"kind": "mamba"}"#);
        assert!((6.1e6..6.3e6).contains(&(count as f64)), "{count}");
        assert_eq!((plan.input, plan.value(plan.output).width), (Input::Tokens(256), 256));
        let (tied, _) = parameters(true, 8, r#""mixer": {"kind": "mamba"}"#);
        assert_eq!(count - tied, 256 * 64 + 256);
    }
}

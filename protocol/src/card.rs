//! Model, dataset and space cards: the YAML at the beginning of `README.md`.
//!
//! A card never stops a publication. Where it does not parse, or a member that listings read has another
//! type than the hub gives it, the rest stands and a [`CardWarning`] names the line.

mod front_matter;
mod tags;
mod yaml;

use serde_json::Value;

use crate::limits::{HEAD_CARD_BYTES_MAX, HEAD_TAGS_MAX, TOKEN_BYTES_MAX};
use crate::name::RepoKind;

/// What a card says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// The whole YAML as JSON, `null` where there is none. Dates stay strings.
    pub data: Value,
    /// Tags as the hub shows them: the card's own, then library, task, languages, `license:x`, …; none
    /// twice.
    pub tags: Vec<String>,
    /// `pipeline_tag`.
    pub pipeline_tag: Option<String>,
    /// `library_name`.
    pub library_name: Option<String>,
    /// `license`.
    pub license: Option<String>,
}

/// What is wrong with a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("README.md line {line}: {message}")]
pub struct CardWarning {
    /// Line of `README.md`, from 1.
    pub line: u64,
    /// What is wrong there.
    pub message: String,
}

/// The part of a card that fits into a head: short tokens only, no free text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadTokens {
    /// `license`.
    pub license: Option<String>,
    /// `library_name`.
    pub library_name: Option<String>,
    /// `pipeline_tag`.
    pub pipeline_tag: Option<String>,
    /// Those of the tags that are tokens and fit, in the card's order.
    pub tags: Vec<String>,
}

impl Card {
    /// What of this card goes into the head.
    pub fn head_tokens(&self) -> HeadTokens {
        // Quotes and a comma come with each in the head's JSON.
        let mut bytes_left = HEAD_CARD_BYTES_MAX;
        let mut fits = |text: &String| {
            let left = bytes_left.checked_sub(text.len() + 3);
            let fits = is_token(text) && left.is_some();
            if let (true, Some(left)) = (fits, left) {
                bytes_left = left;
            }
            fits
        };
        HeadTokens {
            license: self.license.clone().filter(&mut fits),
            library_name: self.library_name.clone().filter(&mut fits),
            pipeline_tag: self.pipeline_tag.clone().filter(&mut fits),
            tags: self
                .tags
                .iter()
                .filter(|tag| fits(tag))
                .take(HEAD_TAGS_MAX)
                .cloned()
                .collect(),
        }
    }
}

/// Whether a head's card takes this text: `[A-Za-z0-9][A-Za-z0-9._:/+@-]{0,95}`.
pub fn is_token(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= TOKEN_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._:/+@-".contains(byte))
}

/// Reads the card of a `README.md`.
///
/// A card that does not parse is empty, and the warning says where it fails. A member of a wrong type
/// counts as far as it can be understood, and the warning says where the first of them stands.
pub fn parse(readme: &[u8], kind: RepoKind) -> (Card, Option<CardWarning>) {
    match read(readme, kind) {
        Ok(read) => read,
        Err(warning) => (Card::default(), Some(warning)),
    }
}

fn read(readme: &[u8], kind: RepoKind) -> Result<(Card, Option<CardWarning>), CardWarning> {
    let Some(front_matter) = front_matter::cut(readme)? else {
        return Ok((Card::default(), None));
    };
    let data = yaml::parse(front_matter)?;
    if !matches!(data, Value::Object(_) | Value::Null) {
        return Err(CardWarning {
            line: 2,
            message: "the front matter should be a mapping of names to values".to_owned(),
        });
    }
    let (tags, wrong) = tags::of(&data, kind);
    let warning = wrong.map(|wrong| CardWarning {
        line: front_matter::line_of(front_matter, wrong.name),
        message: wrong.message,
    });
    let text = |name: &str| data[name].as_str().map(str::to_owned);
    let card = Card {
        tags,
        pipeline_tag: text("pipeline_tag"),
        library_name: text("library_name"),
        license: tags::first(&data, "license"),
        data,
    };
    Ok((card, warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(yaml: &str) -> (Card, Option<CardWarning>) {
        parse(
            format!("---\n{yaml}\n---\n# Title\n").as_bytes(),
            RepoKind::Model,
        )
    }

    fn card(yaml: &str) -> Card {
        let (card, warning) = model(yaml);
        assert_eq!(warning, None, "{yaml}");
        card
    }

    fn warning(yaml: &str) -> (u64, String) {
        let warning = model(yaml).1.expect("a warning");
        (warning.line, warning.message)
    }

    #[test]
    fn a_models_tags_are_those_of_the_hub() {
        let card = card(
            "language:\n- en\n- de\nlicense: apache-2.0\nlibrary_name: sentence-transformers\n\
             pipeline_tag: sentence-similarity\ntags:\n- sentence-transformers\n- Feature Extraction\n\
             datasets:\n- s2orc\n- ms_marco\nbase_model: nreimers/MiniLM-L6-H384-uncased\n\
             base_model_relation: finetune",
        );
        assert_eq!(
            card.tags,
            [
                "sentence-transformers",
                "Feature Extraction",
                "sentence-similarity",
                "en",
                "de",
                "dataset:s2orc",
                "dataset:ms_marco",
                "base_model:nreimers/MiniLM-L6-H384-uncased",
                "base_model:finetune:nreimers/MiniLM-L6-H384-uncased",
                "license:apache-2.0",
            ]
        );
        assert_eq!(card.pipeline_tag.as_deref(), Some("sentence-similarity"));
        assert_eq!(card.library_name.as_deref(), Some("sentence-transformers"));
        assert_eq!(card.license.as_deref(), Some("apache-2.0"));
        assert_eq!(card.data["datasets"][1], "ms_marco");
    }

    #[test]
    fn a_datasets_and_a_spaces_tags_are_those_of_the_hub() {
        let readme =
            b"---\nlicense: [mit, cc0-1.0]\nlanguage: en\ntask_categories:\n- text-generation\n\
            size_categories:\n- 10K<n<100K\ntags: [code]\npretty_name: X\n---\n";
        let (card, warning) = parse(readme, RepoKind::Dataset);
        assert_eq!(warning, None);
        assert_eq!(
            card.tags,
            [
                "code",
                "task_categories:text-generation",
                "language:en",
                "size_categories:10K<n<100K",
                "license:mit",
                "license:cc0-1.0",
            ]
        );
        assert_eq!(card.license.as_deref(), Some("mit"));
        let readme = b"---\nsdk: gradio\nlicense: mit\napp_file: app.py\n---\n";
        assert_eq!(
            parse(readme, RepoKind::Space).0.tags,
            ["gradio", "license:mit"]
        );
    }

    #[test]
    fn scalars_are_those_of_yaml_1_2() {
        let card = card(
            "language: no\ndate: 2024-01-31\nsince: 2024-01-31T10:00:00Z\nversion: 1.10\nyes: on\n\
             true: true\n1: 2\nnothing: ~\nnan: .nan\nhuge: 123456789012345678901234567890",
        );
        assert_eq!(card.tags, ["no"]);
        assert_eq!(card.data["date"], "2024-01-31");
        assert_eq!(card.data["since"], "2024-01-31T10:00:00Z");
        assert_eq!(card.data["version"], 1.1);
        assert_eq!(card.data["yes"], "on");
        assert_eq!(card.data["true"], true);
        assert_eq!(card.data["1"], 2);
        assert_eq!(card.data["nothing"], Value::Null);
        assert_eq!(card.data["nan"], ".nan");
    }

    #[test]
    fn the_front_matter_stands_at_the_very_start() {
        let of = |readme: &str| parse(readme.as_bytes(), RepoKind::Model);
        for none in [
            "",
            "# Title\n",
            "\n---\na: b\n---\n",
            "----\na: b\n----\n",
            "--\n",
        ] {
            assert_eq!(of(none), (Card::default(), None), "{none:?}");
        }
        for some in [
            "---\na: b\n---",
            "---\r\na: b\r\n---\r\ntext",
            "\u{feff}---\na: b\n---\n",
            "---  \na: b\n--- \n---\n",
        ] {
            let (card, warning) = of(some);
            assert_eq!(
                (&card.data["a"], warning),
                (&Value::from("b"), None),
                "{some:?}"
            );
        }
        for empty in ["---\n---\n", "---\n\n# only a comment\n---\n"] {
            assert_eq!(of(empty), (Card::default(), None), "{empty:?}");
        }
    }

    #[test]
    fn a_warning_names_the_line_of_the_file() {
        assert_eq!(warning("a: b\nlicense: [mit\ntags: x").0, 4);
        assert_eq!(warning("a: b\nc: @d\ne: f").0, 3);
        let (line, message) = warning("a: b\nc: d\na: e");
        assert_eq!(line, 4);
        assert!(message.contains("duplicate"), "{message}");
        // To YAML a lone CR ends a line, to editors it does not.
        assert_eq!(warning("a: b\r\nc: d\re: f\r\ng: @h").0, 4);
        assert_eq!(warning("- a\n- b").0, 2);
        assert_eq!(warning("text").0, 2);
        let (card, warning) = parse(b"---\na: b\n", RepoKind::Model);
        assert_eq!(
            (card, warning.map(|warning| warning.line)),
            (Card::default(), Some(1))
        );
        let (_, warning) = parse(b"---\na: b\nc: \xff\n---\n", RepoKind::Model);
        assert_eq!(
            warning.unwrap().to_string(),
            "README.md line 3: the front matter is not valid UTF-8"
        );
    }

    #[test]
    fn a_member_of_a_wrong_type_warns_and_the_rest_stands() {
        let (card, warning) = model("license: mit\nx:\n  tags: y\ntags:\n- a\n- 3\n- b: c\n- d");
        assert_eq!(
            warning,
            Some(CardWarning {
                line: 5,
                message: "`tags` should be a text or a list of texts".into()
            })
        );
        assert_eq!(card.tags, ["a", "d", "license:mit"]);
        assert_eq!(
            model("a: b\n\"pipeline_tag\" : [x]").1,
            Some(CardWarning {
                line: 3,
                message: "`pipeline_tag` should be a text".into()
            })
        );
    }

    #[test]
    fn bombs_are_refused_at_once() {
        let level = |level: usize| {
            let list = vec![format!("*a{}", level - 1); 9].join(", ");
            format!("a{level}: &a{level} [{list}]\n")
        };
        let bomb = format!("a0: &a0 x\n{}", (1..30).map(level).collect::<String>());
        assert!(model(&bomb).1.is_some());
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a, ".repeat(50));
        assert!(warning(&long).1.contains("aliases expanded"));
        let link = |level: usize| format!("a{level}: &a{level} [*a{}]\n", level - 1);
        let chain = format!("a0: &a0 x\n{}", (1..1000).map(link).collect::<String>());
        assert!(model(&chain).1.is_some());
        assert!(model(&"[".repeat(10_000)).1.is_some());
        assert!(model(&"- ".repeat(10_000)).1.is_some());
        assert!(model(&"? ".repeat(10_000)).1.is_some());
        assert!(model(&format!("a: {}b", "{a: ".repeat(100))).1.is_some());
        let large = format!(
            "---\na: {}\n---\n",
            "x".repeat(crate::limits::CARD_BYTES_MAX)
        );
        assert!(parse(large.as_bytes(), RepoKind::Model).1.is_some());
        // An honest anchor is no bomb.
        assert_eq!(card("a: &a [x, y]\ntags: *a").tags, ["x", "y"]);
    }

    #[test]
    fn a_head_takes_tokens_that_fit() {
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        let card = card(&format!(
            "license: mit\nlibrary_name: not a token\ntags: [ok, 'two words', -x, 'a<b', {long}, 'a:b/c.d_e+f@g-h']"
        ));
        let tokens = card.head_tokens();
        assert_eq!(tokens.license.as_deref(), Some("mit"));
        assert_eq!(tokens.library_name, None);
        assert_eq!(tokens.tags, ["ok", "a:b/c.d_e+f@g-h", "license:mit"]);
    }

    #[test]
    fn a_heads_tokens_are_bounded() {
        let tags: Vec<_> = (0..500).map(|index| format!("t{index}")).collect();
        let many = Card {
            tags: tags.clone(),
            ..Card::default()
        };
        assert_eq!(many.head_tokens().tags, tags[..HEAD_TAGS_MAX]);
        let large = Card {
            tags: (0..64).map(|index| format!("{index:0>90}")).collect(),
            ..Card::default()
        };
        let tokens = large.head_tokens().tags;
        assert_eq!(tokens.len(), HEAD_CARD_BYTES_MAX / 93);
    }
}

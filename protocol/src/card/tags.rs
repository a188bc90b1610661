//! The tags that the hub shows for a card, and by which it filters.

use serde_json::Value;

use crate::name::RepoKind;

/// A member of the card that listings read, and the prefix of the tags that it makes.
struct Member {
    name: &'static str,
    prefix: &'static str,
    /// Whether a list is as good as a single text.
    list: bool,
}

const fn one(name: &'static str, prefix: &'static str) -> Member {
    Member {
        name,
        prefix,
        list: false,
    }
}

const fn many(name: &'static str, prefix: &'static str) -> Member {
    Member {
        name,
        prefix,
        list: true,
    }
}

const MODEL: &[Member] = &[
    many("tags", ""),
    one("library_name", ""),
    one("pipeline_tag", ""),
    many("language", ""),
    many("datasets", "dataset:"),
    many("base_model", "base_model:"),
    many("license", "license:"),
];

const DATASET: &[Member] = &[
    many("tags", ""),
    many("task_categories", "task_categories:"),
    many("task_ids", "task_ids:"),
    many("annotations_creators", "annotations_creators:"),
    many("language_creators", "language_creators:"),
    many("language", "language:"),
    many("multilinguality", "multilinguality:"),
    many("size_categories", "size_categories:"),
    many("source_datasets", "source_datasets:"),
    many("license", "license:"),
];

const SPACE: &[Member] = &[
    many("tags", ""),
    one("sdk", ""),
    many("license", "license:"),
];

/// A member that is not of the hub's type: its name, and what it should be.
pub(super) struct WrongType {
    pub(super) name: &'static str,
    pub(super) message: String,
}

/// The tags of a card, none twice, and the first member that has a wrong type.
///
/// What is well-typed in a list counts even where another item is not.
pub(super) fn of(data: &Value, kind: RepoKind) -> (Vec<String>, Option<WrongType>) {
    let members = match kind {
        RepoKind::Model => MODEL,
        RepoKind::Dataset => DATASET,
        RepoKind::Space => SPACE,
    };
    let mut tags = Tags::default();
    let mut wrong = None;
    for member in members {
        let (texts, right) = texts(&data[member.name], member.list);
        for text in &texts {
            tags.add(format!("{}{text}", member.prefix));
        }
        if member.name == "base_model" {
            add_relations(&mut tags, data, &texts);
        }
        if !right && wrong.is_none() {
            let expected = if member.list {
                "a text or a list of texts"
            } else {
                "a text"
            };
            wrong = Some(WrongType {
                name: member.name,
                message: format!("`{}` should be {expected}", member.name),
            });
        }
    }
    (tags.list, wrong)
}

/// The first text of a member.
pub(super) fn first(data: &Value, name: &str) -> Option<String> {
    texts(&data[name], true)
        .0
        .first()
        .map(|text| (*text).to_owned())
}

/// How a model came from its base models, which is said once for all of them.
fn add_relations(tags: &mut Tags, data: &Value, bases: &[&str]) {
    if let Some(relation) = data["base_model_relation"].as_str() {
        for base in bases {
            tags.add(format!("base_model:{relation}:{base}"));
        }
    }
}

/// The texts of a member that is one or a list of them, and whether it is nothing else.
fn texts(value: &Value, list: bool) -> (Vec<&str>, bool) {
    let items = match value {
        Value::Null => return (Vec::new(), true),
        Value::Array(items) if list => items.as_slice(),
        single => std::slice::from_ref(single),
    };
    let texts: Vec<_> = items.iter().filter_map(Value::as_str).collect();
    let right = texts.len() == items.len();
    (texts, right)
}

/// A list that keeps the first of what is equal.
#[derive(Default)]
struct Tags {
    list: Vec<String>,
    seen: std::collections::HashSet<String>,
}

impl Tags {
    fn add(&mut self, tag: String) {
        if !tag.is_empty() && self.seen.insert(tag.clone()) {
            self.list.push(tag);
        }
    }
}

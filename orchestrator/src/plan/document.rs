//! A plan's YAML as a tree that knows where each of its parts was written, with `--set` overrides laid over it.

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::diagnose::{Place, Problem, Refusal, Source};

/// The largest plan, in bytes.
pub const PLAN_BYTES_MAX: usize = 1 << 20;

/// The most values (scalars, lists and maps) in a plan, with those that aliases repeat.
pub const VALUES_MAX: usize = 50_000;

/// How deep lists and maps may nest.
pub const DEPTH_MAX: usize = 16;

/// The most overrides.
pub const OVERRIDES_MAX: usize = 256;

/// The number of a value in its [`Document`].
pub(crate) type ValueIndex = u32;

/// A plan's text, read but not yet understood.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    root: Value,
    origins: Vec<Origin>,
}

/// A value of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// Its number: where it was written.
    pub(crate) index: ValueIndex,
    /// What it is.
    pub(crate) kind: ValueKind,
}

/// What a value is. A scalar is kept as it was written: units are read later, by who knows which are meant.
#[derive(Clone, Debug)]
pub(crate) enum ValueKind {
    Null,
    Scalar(String),
    List(Vec<Value>),
    Map(Vec<(Key, Value)>),
}

/// A key of a map.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) index: ValueIndex,
    pub(crate) name: String,
}

/// Where a value was written.
#[derive(Clone, Debug)]
struct Origin {
    place: Place,
    /// As `--set` would name it: `network.geometry.k`.
    path: String,
}

impl Document {
    /// Reads `text`, which `name` names in messages, and lays `overrides` (`key.key=value`) over it.
    pub(crate) fn read(name: &str, text: &str, overrides: &[String]) -> Result<Document, Problem> {
        if text.len() > PLAN_BYTES_MAX {
            let message =
                format!("{name}: a plan has at most {PLAN_BYTES_MAX} bytes, this one has {}", text.len());
            return Err(Problem { place: None, message, hint: None });
        }
        let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned(), is_override: false });
        let mut reader = Reader { source, start: 0, origins: Vec::new() };
        let root = reader.read(text, "")?;
        let mut document = Document { root, origins: reader.origins };
        if overrides.len() > OVERRIDES_MAX {
            let message = format!("at most {OVERRIDES_MAX} overrides can be given, not {}", overrides.len());
            return Err(Problem { place: None, message, hint: None });
        }
        for text in overrides {
            document.lay_over(text)?;
        }
        Ok(document)
    }

    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    /// Takes the value of a key of the plan out, if it is there.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let ValueKind::Map(entries) = &mut self.root.kind else { return None };
        let at = entries.iter().position(|(key, _)| key.name == name)?;
        Some(entries.remove(at).1)
    }

    /// Puts a value of this document in the place of what stands at a path. Mistakes in it are still those of its own place.
    pub(crate) fn put(&mut self, path: &str, value: Value) -> Result<(), Problem> {
        let steps: Vec<&str> = path.split('.').collect();
        let place = self.place(value.index);
        let origins = &mut self.origins;
        let mut new_index = |path: &str| {
            origins.extend(place.clone().map(|place| Origin { place, path: path.to_owned() }));
            origins.len().saturating_sub(1) as ValueIndex
        };
        put(&mut self.root, &steps, value, &mut new_index).map_err(|refusal| refusal.at(place))
    }

    /// Where a value was written.
    pub(crate) fn place(&self, index: ValueIndex) -> Option<Place> {
        self.origins.get(index as usize).map(|origin| origin.place.clone())
    }

    /// A value's name, such as `network.geometry`; empty for the plan as a whole.
    pub(crate) fn path(&self, index: ValueIndex) -> &str {
        self.origins.get(index as usize).map_or("", |origin| origin.path.as_str())
    }

    fn lay_over(&mut self, text: &str) -> Result<(), Problem> {
        let source = Arc::new(Source { name: "--set".to_owned(), text: text.to_owned(), is_override: true });
        let whole = Place { source: source.clone(), line: 1, column: 1, offset: 0, length: text.len() };
        let refused = |message: &str, hint: &str| Err(Refusal::new(message, hint).at(Some(whole.clone())));
        let Some((path, written)) = text.split_once('=') else {
            return refused("an override needs a `=`", "write key=value, such as --set nodes=200");
        };
        if text.len() > PLAN_BYTES_MAX {
            return refused("this override is larger than a plan may be", "write it into the plan");
        }
        let path = path.trim();
        let steps: Vec<&str> = path.split('.').collect();
        if steps.iter().any(|step| step.is_empty()) || steps.len() > DEPTH_MAX {
            return refused(
                &format!("`{path}` is no path into a plan"),
                "write it like network.successors=4",
            );
        }
        let origins = std::mem::take(&mut self.origins);
        let mut reader = Reader { source, start: text.len() - written.len(), origins };
        let value = reader.read(written, path)?;
        let result =
            put(&mut self.root, &steps, value, &mut |path| reader.push(whole.clone(), path.to_owned()));
        self.origins = reader.origins;
        result.map_err(|refusal| refusal.at(Some(whole)))
    }
}

/// Puts `value` at the end of the path `steps` below `target`, with maps made where there are none.
fn put(
    target: &mut Value,
    steps: &[&str],
    value: Value,
    new_index: &mut dyn FnMut(&str) -> ValueIndex,
) -> Result<(), Refusal> {
    let mut target = target;
    for (depth, step) in steps.iter().enumerate() {
        let path = steps[..depth].join(".");
        if matches!(target.kind, ValueKind::Null) {
            target.kind = ValueKind::Map(Vec::new());
        }
        target = match &mut target.kind {
            ValueKind::Map(entries) => {
                let at = match entries.iter().position(|(key, _)| key.name == *step) {
                    Some(at) => at,
                    None => {
                        let index = new_index(&steps[..=depth].join("."));
                        let key = Key { index, name: (*step).to_owned() };
                        entries.push((key, Value { index, kind: ValueKind::Null }));
                        entries.len() - 1
                    }
                };
                &mut entries[at].1
            }
            ValueKind::List(items) => {
                let length = items.len();
                let item = step.parse::<usize>().ok().and_then(|at| items.get_mut(at));
                item.ok_or_else(|| {
                    let message = format!("`{path}` has no place `{step}`");
                    Refusal::new(message, format!("it is a list of {length}, counted from 0"))
                })?
            }
            ValueKind::Null | ValueKind::Scalar(_) => {
                let message = format!("`{path}` is a single value, so `{step}` cannot be set in it");
                return Err(Refusal::new(
                    message,
                    format!("set the whole of it: --set '{path}={{{step}: …}}'"),
                ));
            }
        };
    }
    *target = value;
    Ok(())
}

/// Reads YAML texts into values, and keeps their origins.
struct Reader {
    source: Arc<Source>,
    /// Where the YAML starts in the source, in bytes.
    start: usize,
    origins: Vec<Origin>,
}

impl Reader {
    fn read(&mut self, yaml: &str, path: &str) -> Result<Value, Problem> {
        let parsed: Result<Spanned<Yaml>, _> = serde_saphyr::from_str_with_options(yaml, options());
        match parsed {
            Ok(parsed) => Ok(self.value(yaml, parsed, path)),
            Err(error) => {
                let error = error.without_snippet();
                let message = UserMessageFormatter.format_message(error).into_owned();
                let place = self.place(yaml, error.location().unwrap_or(Location::UNKNOWN));
                Err(Problem {
                    place: Some(place),
                    message: format!("this is no YAML that can be read: {message}"),
                    hint: Some(yaml_hint(error).to_owned()),
                })
            }
        }
    }

    fn value(&mut self, yaml: &str, parsed: Spanned<Yaml>, path: &str) -> Value {
        let index = self.push(self.place(yaml, parsed.referenced), path.to_owned());
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let kind = match parsed.value {
            Yaml::Null => ValueKind::Null,
            Yaml::Text(text) => ValueKind::Scalar(text),
            Yaml::Other(text) => {
                let written = byte_range(parsed.defined).and_then(|(from, to)| yaml.get(from..to));
                ValueKind::Scalar(written.map_or(text, |written| written.trim().to_owned()))
            }
            Yaml::List(items) => {
                let items = items.into_iter().enumerate();
                ValueKind::List(
                    items.map(|(at, item)| self.value(yaml, item, &below(&at.to_string()))).collect(),
                )
            }
            Yaml::Map(entries) => {
                let entries = entries.into_iter().map(|(key, value)| {
                    let path = below(&key.value);
                    let index = self.push(self.place(yaml, key.referenced), path.clone());
                    (Key { index, name: key.value }, self.value(yaml, value, &path))
                });
                ValueKind::Map(entries.collect())
            }
        };
        Value { index, kind }
    }

    fn push(&mut self, place: Place, path: String) -> ValueIndex {
        self.origins.push(Origin { place, path });
        // A plan and its overrides hold at most VALUES_MAX values each, far fewer than fit.
        (self.origins.len() - 1) as ValueIndex
    }

    fn place(&self, yaml: &str, location: Location) -> Place {
        let (from, to) = byte_range(location).unwrap_or((0, 0));
        let (from, to) = (from.min(yaml.len()), to.min(yaml.len()));
        Place {
            source: self.source.clone(),
            line: usize::try_from(location.line()).unwrap_or(1).max(1),
            column: usize::try_from(location.column()).unwrap_or(1).max(1),
            offset: self.start + from,
            length: to.saturating_sub(from),
        }
    }
}

fn yaml_hint(error: &serde_saphyr::Error) -> &'static str {
    use serde_saphyr::Error;
    match error {
        Error::DuplicateMappingKey { .. } => "keep one of the two",
        Error::MultipleDocuments { .. } => "a file holds one plan: leave out what follows `---`",
        Error::UnknownAnchor { .. } => "an alias `*name` stands for what was marked `&name` before",
        Error::Budget { .. } => "a plan needs no such depth or size: write it flatter and shorter",
        _ => "look at the indentation, the colons, the quotes and the brackets, here and in the line before",
    }
}

fn byte_range(location: Location) -> Option<(usize, usize)> {
    let span = location.span();
    let from = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    Some((from, from.checked_add(length)?))
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_events: 4 * VALUES_MAX,
            max_nodes: VALUES_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            // A second one is refused as such.
            max_documents: 2,
            max_anchors: 1000,
            max_aliases: 1000,
            max_recorded_anchor_events: VALUES_MAX,
            max_recorded_anchor_bytes: PLAN_BYTES_MAX,
            max_total_scalar_bytes: PLAN_BYTES_MAX,
            max_total_comment_bytes: PLAN_BYTES_MAX,
            max_merge_keys: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: VALUES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
    }
}

/// What the YAML reader hands over. `Other` is a scalar that YAML takes for a number or a truth value.
enum Yaml {
    Null,
    Text(String),
    Other(String),
    List(Vec<Spanned<Yaml>>),
    Map(Vec<(Spanned<String>, Spanned<Yaml>)>),
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Yaml, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Other(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Other(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Other(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Yaml, E> {
        Ok(Yaml::Other(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Yaml, E> {
        Ok(Yaml::Other(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        Ok(Yaml::Other(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
            if list.len() > VALUES_MAX {
                return Err(A::Error::custom(format!("a list has at most {VALUES_MAX} items")));
            }
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Yaml::Map(map))
    }
}

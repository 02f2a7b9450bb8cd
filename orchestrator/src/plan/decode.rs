//! From a [`Document`] to the types of the plan language, with the place of every mistake.
//!
//! serde's errors know no places: here each error takes the place of the innermost value that it arose in.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::diagnose::{Problem, nearest};
use super::document::{Document, Key, Value, ValueIndex, ValueKind};
use super::units::Unit;

/// Reads a document as a `T`.
///
/// # Errors
/// The first thing that is not as `T` has it.
pub(crate) fn decode<'de, T: Deserialize<'de>>(document: &'de Document) -> Result<T, Problem> {
    T::deserialize(At(document.root())).map_err(|error| error.into_problem(document))
}

/// A scalar as it was written, and where: to be read as a `U` later, so that all mistakes are found at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field<U> {
    pub(crate) text: String,
    pub(crate) index: ValueIndex,
    unit: PhantomData<U>,
}

/// By this name a [`Field`] asks for a scalar with its place.
const FIELD: &str = "plan field";

impl<'de, U: Unit> Deserialize<'de> for Field<U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field<U>, D::Error> {
        deserializer.deserialize_newtype_struct(FIELD, FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<U>(PhantomData<U>);

impl<'de, U: Unit> Visitor<'de> for FieldVisitor<U> {
    type Value = Field<U>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} such as `{}`", U::KIND, U::EXAMPLE)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field<U>, A::Error> {
        let (index, text) = entries.next_entry()?.ok_or_else(|| de::Error::missing_field(FIELD))?;
        Ok(Field { text, index, unit: PhantomData })
    }
}

/// One scalar, or a list or map that says more.
#[derive(Clone, Debug)]
pub(crate) enum OneOrMore<U, L> {
    One(Field<U>),
    More(L),
}

/// By these names a [`OneOrMore`] asks for a scalar or a list, for a scalar or a map.
const ONE_OR_LIST: &str = "plan one or list";
const ONE_OR_MAP: &str = "plan one or map";

/// What says more than a scalar: a list or a map.
pub(crate) trait More {
    const IS_LIST: bool;
}

impl<T> More for Vec<T> {
    const IS_LIST: bool = true;
}

impl<'de, U: Unit, L: Deserialize<'de> + More> Deserialize<'de> for OneOrMore<U, L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMore<U, L>, D::Error> {
        let name = if L::IS_LIST { ONE_OR_LIST } else { ONE_OR_MAP };
        deserializer.deserialize_newtype_struct(name, OneOrMoreVisitor(PhantomData))
    }
}

struct OneOrMoreVisitor<U, L>(PhantomData<(U, L)>);

impl<'de, U: Unit, L: Deserialize<'de> + More> Visitor<'de> for OneOrMoreVisitor<U, L> {
    type Value = OneOrMore<U, L>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if L::IS_LIST { "a list" } else { "a map" };
        write!(f, "{} such as `{}`, or {more}", U::KIND, U::EXAMPLE)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, scalar: D) -> Result<Self::Value, D::Error> {
        Field::deserialize(scalar).map(OneOrMore::One)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        L::deserialize(MapAccessDeserializer::new(entries)).map(OneOrMore::More)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        L::deserialize(SeqAccessDeserializer::new(items)).map(OneOrMore::More)
    }
}

/// A mistake, and the value that it is in (`None`: not known yet).
#[derive(Debug)]
pub(crate) struct DecodeError {
    mistake: Mistake,
    index: Option<ValueIndex>,
}

#[derive(Debug)]
enum Mistake {
    Missing(&'static str),
    Unknown { what: &'static str, word: String, known: &'static [&'static str] },
    Other { message: String, hint: Option<String> },
}

impl DecodeError {
    fn at(mut self, index: ValueIndex) -> DecodeError {
        self.index.get_or_insert(index);
        self
    }

    fn into_problem(self, document: &Document) -> Problem {
        let path = self.index.map_or("", |index| document.path(index));
        let (message, hint) = match self.mistake {
            Mistake::Missing(name) if path.is_empty() => {
                (format!("the plan has no `{name}`"), Some(format!("add a line `{name}: …`")))
            }
            Mistake::Missing(name) => {
                (format!("`{path}` has no `{name}`"), Some(format!("add `{name}: …` to it")))
            }
            Mistake::Unknown { what, word, known } => {
                let hint = match nearest(&word, known.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                let place = path.rsplit_once('.').map_or("the plan", |(parent, _)| parent);
                let message = match what {
                    "key" if place == "the plan" => format!("unknown key `{word}` in the plan"),
                    "key" => format!("unknown key `{word}` in `{place}`"),
                    // `geometry: kord` is in `geometry`, `geometry: {kord: …}` in `geometry.kord`.
                    _ if path.ends_with(&format!(".{word}")) => format!("`{place}` cannot be `{word}`"),
                    _ => format!("`{path}` cannot be `{word}`"),
                };
                (message, Some(hint))
            }
            Mistake::Other { message, hint } if path.is_empty() => (message, hint),
            Mistake::Other { message, hint } => (format!("`{path}`: {message}"), hint),
        };
        Problem { place: self.index.and_then(|index| document.place(index)), message, hint }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.mistake)
    }
}

impl std::error::Error for DecodeError {}

impl From<Mistake> for DecodeError {
    fn from(mistake: Mistake) -> DecodeError {
        DecodeError { mistake, index: None }
    }
}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> DecodeError {
        Mistake::Other { message: message.to_string(), hint: None }.into()
    }

    fn missing_field(name: &'static str) -> DecodeError {
        Mistake::Missing(name).into()
    }

    fn unknown_field(word: &str, known: &'static [&'static str]) -> DecodeError {
        Mistake::Unknown { what: "key", word: word.to_owned(), known }.into()
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> DecodeError {
        Mistake::Unknown { what: "value", word: word.to_owned(), known }.into()
    }
}

/// A value that is being read.
#[derive(Clone, Copy)]
struct At<'de>(&'de Value);

impl<'de> At<'de> {
    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.0.kind {
            ValueKind::Null | ValueKind::Scalar(_) => return Err(self.unlike(&visitor)),
            ValueKind::List(items) => visitor.visit_seq(Items(items.iter())),
            ValueKind::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        };
        result.map_err(|error| error.at(self.0.index))
    }

    /// This value is not what was expected.
    fn unlike(self, expected: &dyn de::Expected) -> DecodeError {
        let found = match &self.0.kind {
            ValueKind::Null => "nothing".to_owned(),
            ValueKind::Scalar(text) => format!("`{text}`"),
            ValueKind::List(_) => "a list".to_owned(),
            ValueKind::Map(_) => "a map".to_owned(),
        };
        self.mistake(format!("expected {expected}, found {found}"), None)
    }

    fn mistake(self, message: String, hint: Option<&str>) -> DecodeError {
        let hint = hint.map(str::to_owned);
        DecodeError { mistake: Mistake::Other { message, hint }, index: Some(self.0.index) }
    }
}

impl<'de> Deserializer<'de> for At<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.visit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match &self.0.kind {
            ValueKind::Map(_) if name == ONE_OR_MAP => return self.visit(visitor),
            ValueKind::List(_) if name == ONE_OR_LIST => return self.visit(visitor),
            ValueKind::Null | ValueKind::Map(_) | ValueKind::List(_)
                if name == ONE_OR_MAP || name == ONE_OR_LIST =>
            {
                return Err(self.unlike(&visitor));
            }
            _ if name != FIELD => visitor.visit_newtype_struct(self),
            ValueKind::Scalar(text) => {
                visitor.visit_map(MapDeserializer::new(std::iter::once((self.0.index, text.as_str()))))
            }
            _ => return Err(self.unlike(&visitor)),
        };
        result.map_err(|error: DecodeError| error.at(self.0.index))
    }

    /// A map may be empty: all of its keys may be commented out.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.0.kind {
            ValueKind::Null => {
                let nothing = Entries { entries: [].iter(), value: None };
                visitor.visit_map(nothing).map_err(|error| error.at(self.0.index))
            }
            ValueKind::Map(_) => self.visit(visitor),
            _ => Err(self.unlike(&format!("`key: value` with the keys {}", fields.join(", ")).as_str())),
        }
    }

    /// A key that is there has a value: `seed:` with nothing behind it is a mistake, not the default.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_some(self)
    }

    /// But a list may be empty: all of its items may be commented out.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.kind {
            ValueKind::Null => visitor.visit_seq(Items([].iter())),
            ValueKind::List(_) => self.visit(visitor),
            _ => Err(self.unlike(&"a list (lines that begin with `- `)")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match &self.0.kind {
            ValueKind::Scalar(text) => {
                visitor.visit_enum(Choice { name: text, key: self.0.index, value: None })
            }
            ValueKind::Map(entries) if entries.len() == 1 => {
                let (Key { index, name }, value) = &entries[0];
                visitor.visit_enum(Choice { name, key: *index, value: Some(value) })
            }
            ValueKind::Map(entries) if entries.len() > 1 => {
                let said: Vec<&str> = entries.iter().map(|(key, _)| key.name.as_str()).collect();
                let message =
                    format!("this is one of {}, but says {}", variants.join(", "), said.join(" and "));
                let mistake = Mistake::Other { message, hint: Some("keep one of them".to_owned()) };
                return Err(DecodeError { mistake, index: entries.last().map(|(key, _)| key.index) });
            }
            _ => return Err(self.unlike(&format!("one of {}", variants.join(", ")).as_str())),
        };
        result.map_err(|error| error.at(self.0.index))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Value>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.0.next().map(|item| seed.deserialize(At(item))).transpose()
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, (Key, Value)>,
    value: Option<&'de Value>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        let name: StrDeserializer<'de, DecodeError> = key.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| error.at(key.index))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, DecodeError> {
        let value = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(At(value))
    }
}

/// One of several: `chord`, or `dks: {k: 4}`.
struct Choice<'de> {
    name: &'de str,
    key: ValueIndex,
    value: Option<&'de Value>,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = DecodeError;
    type Variant = Choice<'de>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Choice<'de>), DecodeError> {
        let name: StrDeserializer<'de, DecodeError> = self.name.into_deserializer();
        let variant = seed.deserialize(name).map_err(|error| error.at(self.key))?;
        Ok((variant, self))
    }
}

impl<'de> Choice<'de> {
    fn settings(self) -> Result<At<'de>, DecodeError> {
        let mistake = || Mistake::Other {
            message: format!("`{}` needs its settings", self.name),
            hint: Some(format!("write {{{}: …}}", self.name)),
        };
        self.value.map(At).ok_or_else(|| DecodeError::from(mistake()).at(self.key))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        match self.value {
            None | Some(Value { kind: ValueKind::Null, .. }) => Ok(()),
            Some(value) => {
                Err(At(value).mistake(format!("`{}` has no settings", self.name), Some("leave them out")))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self.settings()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.settings()?.visit(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.settings()?.visit(visitor)
    }
}

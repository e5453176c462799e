//! From a tree of values to a message. Everything that is wrong is named by its path, as the server names it.

use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, ReflectMessage, Value};

use super::{Described, Node, descriptor, short_name};
use crate::words::parse_size_mb;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}{}{problem}", if path.is_empty() { "" } else { " " })]
pub struct FieldError {
    pub path: String,
    pub problem: String,
}

impl FieldError {
    pub fn new(path: &str, problem: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

/// The message with these fields set; those that are not named stay as they are. Groups are merged, lists replaced.
pub fn merge<M: Described>(message: &M, node: &Node) -> Result<M, FieldError> {
    let unknown = || FieldError::new("", format!("{} is not described in this program", M::NAME));
    let descriptor = descriptor(M::NAME).ok_or_else(unknown)?;
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic
        .transcode_from(message)
        .map_err(|error| FieldError::new("", error.to_string()))?;
    merge_into(&mut dynamic, node, "")?;
    dynamic
        .transcode_to()
        .map_err(|error| FieldError::new("", error.to_string()))
}

fn merge_into(message: &mut DynamicMessage, node: &Node, path: &str) -> Result<(), FieldError> {
    let Node::Map(fields) = node else {
        return Err(FieldError::new(
            path,
            format!("is {}; a group of fields is needed", node.kind()),
        ));
    };
    for (name, value) in fields {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let descriptor = message.descriptor();
        let field = descriptor.get_field_by_name(name).ok_or_else(|| {
            let known: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
            FieldError::new(&path, unknown_word(name, "is unknown", &known))
        })?;
        if *value == Node::Null {
            message.clear_field(&field);
            continue;
        }
        let is_group = matches!(field.kind(), Kind::Message(_)) && !field.is_list();
        if is_group {
            if let Value::Message(inner) = message.get_field_mut(&field) {
                merge_into(inner, value, &path)?;
            }
        } else {
            let value = read_field(&field, value, &path)?;
            message.set_field(&field, value);
        }
    }
    Ok(())
}

fn read_field(field: &FieldDescriptor, node: &Node, path: &str) -> Result<Value, FieldError> {
    if !field.is_list() {
        return read_value(field, node, path);
    }
    let Node::List(items) = node else {
        return Err(FieldError::new(path, format!("is {}; a list is needed", node.kind())));
    };
    let read = |(index, item)| read_value(field, item, &format!("{path}[{index}]"));
    Ok(Value::List(
        items.iter().enumerate().map(read).collect::<Result<_, _>>()?,
    ))
}

fn read_value(field: &FieldDescriptor, node: &Node, path: &str) -> Result<Value, FieldError> {
    let needs = |what: &str| FieldError::new(path, format!("is {}; {what} is needed", node.kind()));
    match (field.kind(), node) {
        (Kind::Message(of), _) => {
            let mut message = DynamicMessage::new(of);
            merge_into(&mut message, node, path)?;
            Ok(Value::Message(message))
        }
        (Kind::Enum(of), _) => read_enum(&of, node, path),
        (Kind::Bool, Node::Bool(value)) => Ok(Value::Bool(*value)),
        (Kind::Bool, _) => Err(needs("true or false")),
        (Kind::String, Node::Text(text)) => Ok(Value::String(text.clone())),
        // YAML takes a name of digits for a number.
        (Kind::String, Node::Unsigned(number)) => Ok(Value::String(number.to_string())),
        (Kind::String, _) => Err(needs("a text")),
        (Kind::Uint64 | Kind::Uint32, Node::Text(text)) if field.name().ends_with("_mb") => {
            let mb = parse_size_mb(text).map_err(|problem| FieldError::new(path, problem))?;
            read_number(field, mb, path)
        }
        (Kind::Uint64 | Kind::Uint32, Node::Unsigned(number)) => read_number(field, *number, path),
        (Kind::Uint64 | Kind::Uint32, _) => Err(needs("a number that is not negative")),
        (Kind::Int64, Node::Unsigned(number)) => i64::try_from(*number)
            .map(Value::I64)
            .map_err(|_| needs("a smaller number")),
        (Kind::Int64, Node::Signed(number)) => Ok(Value::I64(*number)),
        _ => Err(FieldError::new(path, "cannot be given here")),
    }
}

fn read_number(field: &FieldDescriptor, number: u64, path: &str) -> Result<Value, FieldError> {
    match field.kind() {
        Kind::Uint32 => u32::try_from(number)
            .map(Value::U32)
            .map_err(|_| FieldError::new(path, format!("is {number}; at most {} is allowed", u32::MAX))),
        _ => Ok(Value::U64(number)),
    }
}

fn read_enum(of: &EnumDescriptor, node: &Node, path: &str) -> Result<Value, FieldError> {
    let words: Vec<String> = of.values().map(|value| short_name(of, value.name())).collect();
    let Node::Text(text) = node else {
        let problem = format!("is {}; one of {} is needed", node.kind(), words.join(", "));
        return Err(FieldError::new(path, problem));
    };
    let word = text.to_ascii_lowercase().replace('-', "_");
    let is_meant = |value: &prost_reflect::EnumValueDescriptor| {
        short_name(of, value.name()) == word || value.name().eq_ignore_ascii_case(&word)
    };
    match of.values().find(is_meant) {
        Some(value) => Ok(Value::EnumNumber(value.number())),
        None => Err(FieldError::new(
            path,
            unknown_word(text, &format!("is {text:?}"), &words),
        )),
    }
}

/// Says what is allowed, and what was probably meant.
fn unknown_word(word: &str, says: &str, known: &[String]) -> String {
    let common = |known: &str| known.chars().zip(word.chars()).take_while(|(a, b)| a == b).count();
    let closeness = |known: &String| (distance(word, known), std::cmp::Reverse(common(known)));
    let close = known
        .iter()
        .min_by_key(|known| closeness(known))
        .map(|known| (distance(word, known), known));
    match close {
        Some((distance, meant)) if distance <= 2 && distance < word.len() => {
            format!("{says}; did you mean {meant}?")
        }
        _ => format!("{says}; {} are allowed", known.join(", ")),
    }
}

/// How many letters have to change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

//! From a message to a tree of values.

use prost_reflect::{
    Cardinality, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

use super::{Described, Node, descriptor, short_name};

/// A message, with every field.
pub fn node_of<M: Described>(message: &M) -> Node {
    node_of_bytes(M::NAME, &message.encode_to_vec()).unwrap_or(Node::Null)
}

/// The same of a message that is here as bytes. `None`: it is unknown, or these are not its bytes.
pub fn node_of_bytes(name: &str, bytes: &[u8]) -> Option<Node> {
    let message = DynamicMessage::decode(descriptor(name)?, bytes).ok()?;
    Some(of_message(&message))
}

fn of_message(message: &DynamicMessage) -> Node {
    let descriptor: MessageDescriptor = message.descriptor();
    let mut fields: Vec<FieldDescriptor> = descriptor.fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    // Of a choice only what was chosen is shown.
    let shown = fields
        .iter()
        .filter(|field| message.has_field(field) || is_always_there(field));
    Node::Map(
        shown
            .map(|field| (field.name().to_owned(), of_field(message, field)))
            .collect(),
    )
}

fn is_always_there(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_none_or(|choice| choice.is_synthetic())
}

fn of_field(message: &DynamicMessage, field: &FieldDescriptor) -> Node {
    let is_absent = field.supports_presence() && !message.has_field(field);
    if is_absent && field.cardinality() != Cardinality::Repeated {
        return Node::Null;
    }
    of_value(&message.get_field(field), &field.kind())
}

fn of_value(value: &Value, kind: &Kind) -> Node {
    match value {
        Value::Bool(value) => Node::Bool(*value),
        Value::I32(value) => Node::Signed((*value).into()),
        Value::I64(value) => Node::Signed(*value),
        Value::U32(value) => Node::Unsigned((*value).into()),
        Value::U64(value) => Node::Unsigned(*value),
        Value::F32(value) => Node::Float((*value).into()),
        Value::F64(value) => Node::Float(*value),
        Value::String(text) => Node::text(text.clone()),
        Value::Bytes(bytes) => Node::text(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(of) => Node::text(enum_word(of, *number)),
            _ => Node::Signed((*number).into()),
        },
        Value::Message(message) => of_message(message),
        Value::List(items) => Node::List(items.iter().map(|item| of_value(item, kind)).collect()),
        Value::Map(_) => Node::Null,
    }
}

/// A newer server may use a value that has no name here.
fn enum_word(of: &EnumDescriptor, number: i32) -> String {
    match of.get_value(number) {
        Some(value) => short_name(of, value.name()),
        None => number.to_string(),
    }
}

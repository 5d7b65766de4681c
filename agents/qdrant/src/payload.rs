//! Points in the form of Qdrant's messages, and the payload of LangChain's `QdrantVectorStore`.

use std::collections::HashMap;

use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{self, DenseVector, ListValue, PointStruct, Struct, Value, Vector, Vectors, vector};

use crate::point::{PointId, PointMetadata, StoredPoint};

/// The keys that LangChain reads unless it is told others.
const TEXT_KEY: &str = "page_content";
const METADATA_KEY: &str = "metadata";

impl From<PointId> for qdrant::PointId {
    fn from(id: PointId) -> Self {
        Self { point_id_options: Some(PointIdOptions::Uuid(id.to_string())) }
    }
}

impl PointId {
    /// `None` for a number, which no point of ours has.
    pub(crate) fn of_answer(id: Option<qdrant::PointId>) -> Option<Self> {
        match id?.point_id_options? {
            PointIdOptions::Uuid(text) => Self::parse(&text),
            PointIdOptions::Num(_) => None,
        }
    }
}

impl From<StoredPoint> for PointStruct {
    fn from(point: StoredPoint) -> Self {
        let payload = HashMap::from([
            (TEXT_KEY.to_owned(), Value::from(point.text)),
            (METADATA_KEY.to_owned(), metadata(point.metadata)),
        ]);
        let dense = vector::Vector::Dense(DenseVector { data: point.vector });
        // The fields outside `vector` are those of older servers.
        let vector = Vector { vector: Some(dense), ..Vector::default() };
        Self {
            id: Some(point.id.into()),
            payload,
            vectors: Some(Vectors { vectors_options: Some(VectorsOptions::Vector(vector)) }),
        }
    }
}

fn metadata(metadata: PointMetadata) -> Value {
    let PointMetadata { knowledge, source, page, first_line, last_line, context, labels, owner, model } = metadata;
    let number = |number: u32| Value::from(i64::from(number));
    let labels = labels.into_iter().map(|(name, value)| (name, Value::from(value)));
    let mut fields = HashMap::from([
        ("knowledge".to_owned(), Value::from(knowledge)),
        ("source".to_owned(), Value::from(source)),
        ("lines".to_owned(), list([first_line, last_line].map(number))),
        ("context".to_owned(), list(context.into_iter().map(Value::from))),
        ("labels".to_owned(), structure(labels.collect())),
        ("owner".to_owned(), Value::from(owner)),
        ("model".to_owned(), Value::from(model)),
    ]);
    fields.extend(page.map(|page| ("page".to_owned(), number(page))));
    structure(fields)
}

fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values: values.into_iter().collect() })) }
}

fn structure(fields: HashMap<String, Value>) -> Value {
    Value { kind: Some(Kind::StructValue(Struct { fields })) }
}

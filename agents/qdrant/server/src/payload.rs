//! Payloads of points.

use std::collections::HashMap;

use qdrant_client::qdrant::Value;

/// The payload of a point.
pub(crate) type Payload = HashMap<String, Value>;

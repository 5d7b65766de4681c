//! The vectors of a collection.

use std::fmt;

use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{CollectionInfo, Distance, VectorParams, VectorsConfig};

/// The vectors that the points of a collection have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectionShape {
    /// One without a name.
    Unnamed {
        /// Its dimensions.
        dimensions: u64,
        /// How two are compared, such as `Cosine`.
        distance: &'static str,
        /// Whether it is a list of vectors instead of one.
        is_multiple: bool,
    },
    /// Some with names.
    Named(Vec<String>),
    /// None that this program knows of.
    Unknown,
}

impl CollectionShape {
    /// One vector, compared by cosine.
    pub(crate) fn cosine(dimensions: u32) -> Self {
        let distance = Distance::Cosine.as_str_name();
        Self::Unnamed { dimensions: u64::from(dimensions), distance, is_multiple: false }
    }

    pub(crate) fn of_answer(info: CollectionInfo) -> Self {
        let params = info.config.and_then(|config| config.params);
        match params.and_then(|params| params.vectors_config).and_then(|vectors| vectors.config) {
            Some(Config::Params(params)) => Self::Unnamed {
                dimensions: params.size,
                distance: params.distance().as_str_name(),
                is_multiple: params.multivector_config.is_some(),
            },
            Some(Config::ParamsMap(named)) if !named.map.is_empty() => {
                let mut names: Vec<String> = named.map.into_keys().collect();
                names.sort_unstable();
                Self::Named(names)
            }
            _ => Self::Unknown,
        }
    }
}

/// What a collection is created with. Whether vectors lie on disk is left to the server's own settings.
pub(crate) fn cosine_config(dimensions: u32) -> VectorsConfig {
    let params =
        VectorParams { size: u64::from(dimensions), distance: Distance::Cosine.into(), ..VectorParams::default() };
    VectorsConfig { config: Some(Config::Params(params)) }
}

impl fmt::Display for CollectionShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed { dimensions, distance, is_multiple } => {
                let what = if *is_multiple { "a list of unnamed vectors" } else { "one unnamed vector" };
                write!(f, "{what} of {dimensions} dimensions (distance {distance})")
            }
            Self::Named(names) => write!(f, "vectors with names (`{}`)", names.join("`, `")),
            Self::Unknown => f.write_str("no dense vectors"),
        }
    }
}

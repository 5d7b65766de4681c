//! What an index holds, read from its database and from its searches.

use std::collections::BTreeMap;
use std::path::Path;

use artel_knowledge::{Embedder as _, EntryKey};
use artel_knowledge::{Index, QueryEmbedding, SearchFilter, SearchQuery};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::reader::{self, BASE, HashEmbedder};

/// A chunk as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredChunk {
    pub(crate) text: String,
    begin: i64,
    line: i64,
    vector: Vec<u8>,
}

/// The chunks of each entry. One without is listed too.
pub(crate) type StoredChunks = BTreeMap<String, Vec<StoredChunk>>;

pub(crate) async fn dump(database: &Path) -> StoredChunks {
    let mut conn = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database)).await.unwrap();
    let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut conn).await.unwrap();
    assert_eq!(check, "ok");
    let keys: Vec<String> = sqlx::query_scalar("SELECT key FROM entries").fetch_all(&mut conn).await.unwrap();
    let mut chunks: StoredChunks = keys.into_iter().map(|key| (key, Vec::new())).collect();
    let rows: Vec<(String, String, i64, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT e.key, c.text, c.byte_start, c.line_start, v.vector FROM chunks c
         LEFT JOIN entries e ON e.id = c.entry LEFT JOIN embeddings v ON v.id = c.embedding ORDER BY c.byte_start",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    for (key, text, begin, line, vector) in rows {
        chunks.get_mut(&key).unwrap().push(StoredChunk { text, begin, line, vector });
    }
    conn.close().await.unwrap();
    chunks
}

/// Every chunk is found in its file, by its words and by its vector, and nothing is found that is gone.
pub(crate) async fn searches_agree(database: &Path, chunks: &StoredChunks, removed: &[String]) {
    let index = Index::open(database).await.unwrap();
    let base = index.open_base(BASE, &reader::settings()).await.unwrap();
    let stats = index.stats(base.target).await.unwrap();
    assert_eq!(stats.chunks, chunks.values().map(|chunks| chunks.len() as u64).sum::<u64>());
    assert_eq!(stats.entries, chunks.len() as u64);
    for (key, chunk) in chunks.iter().flat_map(|(key, chunks)| chunks.iter().map(move |chunk| (key, chunk))) {
        let embedding = QueryEmbedding { model: HashEmbedder.model(), values: reader::vector(&chunk.text) };
        let filter = SearchFilter { paths: vec![key.clone()], ..SearchFilter::default() };
        let query = SearchQuery { embedding: Some(embedding), filter, top: 200, ..SearchQuery::new(&*chunk.text) };
        let found = index.search(BASE, query).await.unwrap();
        let passage = found.passages.iter().find(|passage| passage.chunk.text == chunk.text);
        let passage = passage.unwrap_or_else(|| panic!("{} of {key} is not found", chunk.text));
        assert_eq!(passage.entry, EntryKey::file(Path::new(key)).unwrap());
        assert!(passage.vector.unwrap() > 0.999, "{passage:?}");
        assert!(passage.keyword.is_some(), "{passage:?}");
    }
    for word in removed {
        let found = index.search(BASE, SearchQuery::new(&**word)).await.unwrap();
        assert_eq!(found.passages, [], "{word} is gone");
    }
    index.close().await;
}

//! An indexer over real files with the real watcher.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::*;
use crate::{HandedText, IndexProgress, Indexer, IndexerOptions, SearchMode};

/// Longer than anything here takes on a busy machine.
const PATIENCE_TIMEOUT: Duration = Duration::from_secs(30);

struct Fixture {
    docs: TempDir,
    data: TempDir,
    embedder: Arc<WordEmbedder>,
    chunker: Arc<ParagraphChunker>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            docs: TempDir::new().unwrap(),
            data: TempDir::new().unwrap(),
            embedder: WordEmbedder::new("m"),
            chunker: Arc::default(),
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.docs.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn start(&self, index: &Index) -> Indexer {
        let sources = vec![source(self.docs.path())];
        let embedder: Arc<dyn Embedder> = self.embedder.clone();
        let options = IndexerOptions::default();
        Indexer::start(index.clone(), "handbook", sources, Some(embedder), self.chunker.clone(), options).await.unwrap()
    }

    fn embedded(&self) -> u64 {
        self.embedder.embedded.load(Relaxed)
    }

    fn read(&self) -> u64 {
        self.chunker.read.load(Relaxed)
    }
}

async fn idle(indexer: &Indexer) -> IndexProgress {
    timeout(PATIENCE_TIMEOUT, indexer.idle()).await.unwrap();
    indexer.progress().borrow().clone()
}

async fn found(index: &Index, text: &str) -> Vec<String> {
    let query = SearchQuery { mode: SearchMode::Keyword, ..query("m", text) };
    texts(&index.search("handbook", query).await.unwrap()).into_iter().map(str::to_owned).collect()
}

/// Waits until a search finds these.
async fn until_found(indexer: &Indexer, index: &Index, text: &str, expected: &[&str]) {
    let mut progress = indexer.progress();
    let wait = async {
        while found(index, text).await != expected {
            progress.changed().await.unwrap();
        }
    };
    timeout(PATIENCE_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{text} never gave {expected:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed() {
    let fixture = Fixture::new();
    fixture.write("a.md", "A zebra runs.");
    fixture.write("sub/deep/b.md", "A walrus swims.");
    fixture.write("c.bin", "A zebra that is no text.");
    let index = open(&fixture.data).await;
    let indexer = fixture.start(&index).await;
    let progress = idle(&indexer).await;
    assert_eq!((progress.entries, progress.done, progress.chunks, progress.embedded), (2, 2, 2, 2));
    assert!(progress.polling.is_none(), "{:?}", progress.polling);
    assert_eq!(found(&index, "zebra").await, ["A zebra runs."]);

    let saved = Instant::now();
    fixture.write("a.md", "A lion sleeps.");
    until_found(&indexer, &index, "lion", &["A lion sleeps."]).await;
    println!("a saved file was found after {:?}", saved.elapsed());
    fs::rename(fixture.docs.path().join("sub"), fixture.docs.path().join("moved")).unwrap();
    fixture.write("moved/deep/new.md", "A heron fishes.");
    until_found(&indexer, &index, "heron", &["A heron fishes."]).await;
    idle(&indexer).await;
    let result = index.search("handbook", query("m", "walrus")).await.unwrap();
    assert!(result.passages[0].entry.as_str().ends_with("moved/deep/b.md"));
    let embedded = fixture.embedded();
    fs::remove_file(fixture.docs.path().join("a.md")).unwrap();
    until_found(&indexer, &index, "lion", &[]).await;
    fixture.write("back.md", "A lion sleeps.");
    until_found(&indexer, &index, "lion", &["A lion sleeps."]).await;
    assert_eq!(fixture.embedded(), embedded, "what returns is not embedded again");
    fs::remove_dir_all(fixture.docs.path().join("moved")).unwrap();
    until_found(&indexer, &index, "walrus heron", &[]).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_is_neither_read_nor_embedded_again() {
    let fixture = Fixture::new();
    for n in 0..50 {
        fixture.write(&format!("{n}.md"), &format!("text number{n}"));
        let file = fs::File::open(fixture.docs.path().join(format!("{n}.md"))).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    }
    fixture.write("bad.md", "broken");
    let index = open(&fixture.data).await;
    let indexer = fixture.start(&index).await;
    let progress = idle(&indexer).await;
    assert_eq!((progress.entries, fixture.read(), fixture.embedded()), (51, 51, 50));
    let failures: Vec<_> = progress.failures.values().collect();
    assert_eq!(failures, ["it is broken"]);
    indexer.stop().await;
    let indexer = fixture.start(&index).await;
    let progress = idle(&indexer).await;
    assert_eq!((fixture.read(), fixture.embedded()), (51, 50), "not even what cannot be read");
    assert_eq!((progress.unchanged, progress.failures.len()), (51, 1));
    fixture.write("bad.md", "mended");
    until_found(&indexer, &index, "mended", &["mended"]).await;
    assert_eq!(idle(&indexer).await.failures.len(), 0);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_handed_in_are_indexed_and_removed() {
    let fixture = Fixture::new();
    let index = open(&fixture.data).await;
    let indexer = fixture.start(&index).await;
    idle(&indexer).await;
    let text = HandedText {
        id: "note-1".into(),
        name: "note.md".into(),
        text: "A quagga grazes.".into(),
        owner: CallerName::parse("alice").unwrap(),
        labels: EntryLabels::new(),
    };
    index.put_text("handbook", text).await.unwrap();
    indexer.rescan();
    until_found(&indexer, &index, "quagga", &["A quagga grazes."]).await;
    let passage = &index.search("handbook", query("m", "quagga")).await.unwrap().passages[0];
    assert_eq!((passage.entry.text_id(), passage.owner.as_str()), (Some("note-1"), "alice"));
    assert!(index.remove_text("handbook", "note-1").await.unwrap());
    indexer.rescan();
    until_found(&indexer, &index, "quagga", &[]).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_is_built_beside_the_one_that_answers() {
    let mut fixture = Fixture::new();
    for n in 0..20 {
        fixture.write(&format!("{n}.md"), &format!("text number{n}"));
    }
    let index = open(&fixture.data).await;
    let indexer = fixture.start(&index).await;
    idle(&indexer).await;
    indexer.stop().await;
    fs::remove_file(fixture.docs.path().join("7.md")).unwrap();
    fixture.embedder = WordEmbedder::new("another");
    let indexer = fixture.start(&index).await;
    assert!(indexer.progress().borrow().is_shadow);
    let progress = idle(&indexer).await;
    assert!(!progress.is_shadow);
    assert_eq!(fixture.embedded(), 19);
    let found = index.search("handbook", query("another", "number3")).await.unwrap();
    assert!(found.best_vector.is_some());
    assert_eq!(texts(&found)[0], "text number3");
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_appears_later_is_found() {
    let fixture = Fixture::new();
    let later = fixture.docs.path().join("later");
    let index = open(&fixture.data).await;
    let options = IndexerOptions { poll_interval: Duration::from_millis(50), ..IndexerOptions::default() };
    let embedder: Arc<dyn Embedder> = fixture.embedder.clone();
    let sources = vec![source(&later)];
    let indexer = Indexer::start(index.clone(), "handbook", sources, Some(embedder), fixture.chunker.clone(), options)
        .await
        .unwrap();
    assert!(idle(&indexer).await.polling.is_some());
    fixture.write("later/a.md", "A zebra runs.");
    until_found(&indexer, &index, "zebra", &["A zebra runs."]).await;
    fixture.write("later/b.md", "A lion sleeps.");
    until_found(&indexer, &index, "lion", &["A lion sleeps."]).await;
    assert!(indexer.progress().borrow().polling.is_none(), "it is watched once it is there");
    indexer.stop().await;
}

/// A tree of ten thousand files that did not change: `cargo test --release` tells how long it takes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes 10,000 files"]
async fn a_large_tree_that_did_not_change_is_compared_quickly() {
    let fixture = Fixture::new();
    for n in 0..10_000 {
        fixture
            .write(&format!("{}/{}/{n}.md", n % 10, n % 100), &format!("text number{n} of many\n\nwith two parts{n}"));
    }
    let index = open(&fixture.data).await;
    let begin = Instant::now();
    let indexer = fixture.start(&index).await;
    timeout(Duration::from_secs(300), indexer.idle()).await.unwrap();
    println!("10,000 files were indexed in {:?}", begin.elapsed());
    indexer.stop().await;
    index.close().await;
    let (read, embedded) = (fixture.read(), fixture.embedded());
    let begin = Instant::now();
    let index = open(&fixture.data).await;
    let opened = begin.elapsed();
    let indexer = fixture.start(&index).await;
    timeout(Duration::from_secs(300), indexer.idle()).await.unwrap();
    let elapsed = begin.elapsed();
    println!("10,000 files were compared in {elapsed:?}, {opened:?} of it to open the index");
    assert_eq!((fixture.read(), fixture.embedded()), (read, embedded));
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    indexer.stop().await;
}

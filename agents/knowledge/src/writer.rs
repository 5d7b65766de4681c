//! The one connection that writes: a transaction changes the database and what memory holds of it together, or neither.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::sqlite::SqliteConnection;

use crate::error::Error;
use crate::views::{self, CommittedViews, ViewChange};

/// A transaction's access to the database, and what it will change in memory.
#[derive(Debug)]
pub(crate) struct IndexWriter {
    pub(crate) conn: SqliteConnection,
    pub(crate) path: Arc<Path>,
    changes: Vec<ViewChange>,
    /// Whether a transaction was begun and not ended, which a panic in it leaves behind.
    is_open: bool,
    /// Held against a second process as long as it stays open.
    _lock: File,
}

impl IndexWriter {
    pub(crate) fn new(conn: SqliteConnection, path: Arc<Path>, lock: File) -> Self {
        Self { conn, path, changes: Vec::new(), is_open: false, _lock: lock }
    }

    pub(crate) fn change(&mut self, change: ViewChange) {
        self.changes.push(change);
    }

    /// Classifies an error of the database.
    pub(crate) fn failed(&self, source: sqlx::Error) -> Error {
        Error::database(&self.path, source)
    }

    /// Runs an operation in a transaction.
    pub(crate) async fn transact<T>(
        &mut self,
        committed: &CommittedViews,
        operation: impl for<'a> FnOnce(&'a mut Self) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        if self.is_open {
            self.roll_back().await;
        }
        self.execute("BEGIN IMMEDIATE").await?;
        self.is_open = true;
        let outcome = match operation(self).await {
            Ok(value) => self.commit(committed).await.map(|()| value),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.roll_back().await;
        }
        outcome
    }

    async fn commit(&mut self, committed: &CommittedViews) -> Result<(), Error> {
        let changes = std::mem::take(&mut self.changes);
        let counted = sqlx::query_scalar("UPDATE state SET commits = commits + 1 RETURNING commits");
        let commits: i64 = counted.fetch_one(&mut self.conn).await.map_err(|e| Error::database(&self.path, e))?;
        let before = committed.at(commits - 1).expect("the last committed state is kept");
        // Merging segments copies megabytes now and then.
        let after = tokio::task::spawn_blocking(move || Arc::new(views::changed(&before, changes)));
        let after = after.await.map_err(|_| Error::Closed { path: self.path.to_path_buf() })?;
        committed.publish(commits, after);
        let ended = self.execute("COMMIT").await;
        match &ended {
            Ok(()) => self.is_open = false,
            Err(_) => committed.take_back(commits),
        }
        ended
    }

    /// SQLite may have rolled back already, as after a full disk.
    async fn roll_back(&mut self) {
        self.changes.clear();
        if let Err(error) = self.execute("ROLLBACK").await {
            tracing::debug!(%error, "the transaction of the knowledge index had ended already");
        }
        self.is_open = false;
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), Error> {
        let done = sqlx::raw_sql(sql).execute(&mut self.conn).await;
        done.map(drop).map_err(|e| Error::database(&self.path, e))
    }
}

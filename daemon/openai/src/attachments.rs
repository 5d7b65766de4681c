//! The clients that read the tasks of idempotency keys. Such a task outlives a lost connection: its client has some time to
//! attach again with the same key, and only then the task is cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use artel_proto::v1;
use axum::http::Extensions;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use prost_types::FieldMask;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::task::JoinHandle;

use crate::call::request_of;
use crate::services::Services;

/// How long a task goes on without a client: some attempts to connect again, and a restart of a program.
const ATTACH_GRACE: Duration = Duration::from_secs(60);
/// The reason of a task that is cancelled.
const CANCEL_REASON: &str = "its client disconnected and did not come back";

/// The tasks that have clients, or had them within the last [`ATTACH_GRACE`]. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Attachments(Arc<Mutex<AttachmentTable>>);

#[derive(Default)]
struct AttachmentTable {
    tasks: HashMap<String, Attachment>,
    /// Read by the clients of a key until they are attached, and written while its task is cancelled.
    arrivals: HashMap<String, Weak<RwLock<()>>>,
}

#[derive(Default)]
struct Attachment {
    clients: usize,
    /// What cancels the task after some time.
    cancelling: Option<JoinHandle<()>>,
}

/// A client that reads a task. When it is dropped, the client is gone.
pub(crate) struct AttachedClient {
    attachments: Attachments,
    task: String,
    /// What cancels the task some time after the last client has gone; without it, the task goes on.
    cancelling: Option<BoxFuture<'static, ()>>,
    has_task_ended: bool,
}

impl Attachments {
    /// Begins to run the task of a key. It is not cancelled from now on until this is dropped, and is not being cancelled.
    pub(crate) async fn arrive(&self, key: &str) -> OwnedRwLockReadGuard<()> {
        self.arrivals(key).read_owned().await
    }

    /// Attaches a client to the task of a key, which goes on without it if `detach` is set. If several clients read it, the last
    /// one to go decides.
    pub(crate) fn attach<S: Services>(
        &self,
        task: &str,
        key: String,
        services: S,
        extensions: Extensions,
        detach: bool,
    ) -> AttachedClient {
        let mut table = self.table();
        let attachment = table.tasks.entry(task.to_owned()).or_default();
        attachment.clients += 1;
        if let Some(cancelling) = attachment.cancelling.take() {
            cancelling.abort();
        }
        drop(table);
        let (attachments, id) = (self.clone(), task.to_owned());
        let cancelling = async move {
            tokio::time::sleep(ATTACH_GRACE).await;
            let _none_arrives = attachments.arrivals(&key).write_owned().await;
            if attachments.remove_if_left(&id) {
                cancel(&services, &extensions, id).await;
            }
        };
        AttachedClient {
            attachments: self.clone(),
            task: task.to_owned(),
            cancelling: (!detach).then(|| cancelling.boxed()),
            has_task_ended: false,
        }
    }

    /// The lock of a key. All callers that use the same key share it, and wait for each other at most.
    fn arrivals(&self, key: &str) -> Arc<RwLock<()>> {
        let mut table = self.table();
        table.arrivals.retain(|_, lock| lock.strong_count() > 0);
        table.arrivals.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let lock = Arc::default();
            table.arrivals.insert(key.to_owned(), Arc::downgrade(&lock));
            lock
        })
    }

    /// Removes a task unless a client is attached; whether it had none.
    fn remove_if_left(&self, task: &str) -> bool {
        let mut table = self.table();
        let is_left = table.tasks.get(task).is_some_and(|attachment| attachment.clients == 0);
        if is_left {
            table.tasks.remove(task);
        }
        is_left
    }

    fn table(&self) -> MutexGuard<'_, AttachmentTable> {
        self.0.lock().expect("nothing panics while it holds the attachments")
    }
}

/// Cancels a task, unless it is set aside: then it waits to be taken up again.
async fn cancel<S: Services>(services: &S, extensions: &Extensions, task: String) {
    let read_mask = Some(FieldMask { paths: vec!["state".to_owned()] });
    let request = v1::GetTaskRequest { task_id: task.clone(), read_mask, max_bytes: 0 };
    let found = services.get(request_of(extensions, request)).await;
    if found.is_ok_and(|found| found.get_ref().state() == v1::TaskState::SetAside) {
        return;
    }
    let request = v1::CancelRequest { task_id: task.clone(), reason: CANCEL_REASON.to_owned(), step_id: String::new() };
    if let Err(error) = services.cancel(request_of(extensions, request)).await {
        tracing::warn!(%task, %error, "failed to cancel a task whose client disconnected");
    }
}

impl AttachedClient {
    /// The task needs no client any more.
    pub(crate) fn task_ended(mut self) {
        self.has_task_ended = true;
    }
}

impl Drop for AttachedClient {
    fn drop(&mut self) {
        let mut table = self.attachments.table();
        let Some(attachment) = table.tasks.get_mut(&self.task) else { return };
        attachment.clients = attachment.clients.saturating_sub(1);
        if attachment.clients > 0 {
            return;
        }
        match self.cancelling.take().filter(|_| !self.has_task_ended) {
            Some(cancelling) => attachment.cancelling = Some(tokio::spawn(cancelling)),
            None => {
                table.tasks.remove(&self.task);
            }
        }
    }
}

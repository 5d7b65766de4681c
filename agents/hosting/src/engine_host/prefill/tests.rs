//! Roles are prefilled as soon as their own adapters are checked.

use std::path::Path;
use std::time::Duration;

use artel_engine::Options;
use artel_engine::backend::EngineLimits;
use artel_engine::scripted::ScriptedBackend;
use artel_placement::Placement;
use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::*;
use crate::LoadProgress;
use crate::tests::catalog;

/// Has two adapters at once and one of another hash; the download of `slow` ends when the test lets it.
struct SlowHub(Semaphore);

#[async_trait]
impl Loader for SlowHub {
    async fn load(&self, _: &Model, _: &Placement, _: LoadProgress) -> Result<EngineHandle, LoadError> {
        Err(LoadError::permanent("the engine is there already".to_owned()))
    }

    async fn fetch_adapter(&self, adapter: &Adapter) -> Result<(), LoadError> {
        match adapter.name.as_ref().unwrap().as_str() {
            "slow" => self.0.acquire().await.unwrap().forget(),
            "other" => return Err(LoadError::permanent("another file".to_owned())),
            _ => {}
        }
        Ok(())
    }
}

async fn engine() -> EngineHandle {
    let limits = EngineLimits {
        context_tokens: 4096,
        sequences: 2,
        batch_tokens: 64,
        prefill_multiple: 1,
        can_truncate_kv: true,
        can_shift: true,
    };
    let load = move || Ok(ScriptedBackend::new(limits, |_| String::new()));
    EngineHandle::spawn("talk", Options::default(), load).await.unwrap()
}

/// A role for each adapter of the directory, and one without: the prompts are so long that their prefixes are kept.
fn yaml(dir: &Path) -> String {
    let prompt = "You speak of ships, sails and winds. ".repeat(20);
    let role = |name: &str, adapter: &str| {
        format!("---\nrole: {name}\ndescription: D.\nmodel: talk\n{adapter}prompt: {name}. {prompt}\n")
    };
    let mut yaml = "model: talk\nfile: talk.gguf\n".to_owned() + &role("plain", "");
    for name in ["slow", "other", "quick"] {
        let file = dir.join(format!("{name}.gguf"));
        std::fs::write(&file, name).unwrap();
        let hash = "ab".repeat(32);
        yaml += &format!("---\nadapter: {name}\nfile: {}\nsha256: {hash}\n", file.display());
        yaml += &role(&format!("a-{name}"), &format!("adapter: {name}\n"));
    }
    yaml
}

#[tokio::test]
async fn a_role_waits_for_no_adapter_but_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(&yaml(dir.path()));
    let model = catalog.model("talk").unwrap();
    let workload = ModelWorkload::of(&catalog, model, dir.path());
    assert_eq!((workload.prefixes.len(), workload.hashed.len()), (4, 3));
    let (engine, hub) = (engine().await, Arc::new(SlowHub(Semaphore::new(0))));
    // What two prefixes take: those of the roles have the same length but for their names.
    let (reference, prefixes) = (self::engine().await, workload.prefixes.clone());
    for prefix in prefixes.into_iter().filter(|prefix| matches!(&*prefix.flow, "plain" | "a-quick")) {
        reference.prefill(prefix).await.unwrap();
    }
    let of_two = reference.stats().prefill_tokens;
    assert!(of_two > 0);

    let prefill = start(engine.clone(), workload, model, hub.clone());
    // The first two adapters are not to be had yet, or never.
    let both = async {
        while engine.stats().prefill_tokens < of_two {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("the others wait for the slow adapter");
    assert!(!prefill.is_finished());
    hub.0.add_permits(1);
    prefill.await.unwrap();
    let all = engine.stats().prefill_tokens;
    assert!(all > of_two && all < 2 * of_two, "three of four: {all} after {of_two}");
}

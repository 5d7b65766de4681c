//! Models that give their memory back when nothing uses them, and models that never do.

use std::time::Duration;

use artel_proto::v1;
use artel_tests::{Daemon, daemon, task_request};
use tonic_types::StatusExt as _;

use crate::engines::{engines, load};

/// Far beyond the two seconds for which the model is kept.
const END_TIMEOUT: Duration = Duration::from_secs(60);

fn model(name: &str, keep: &str) -> String {
    format!(
        "---\nmodel: {name}\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 4\nkeep: {keep}\n\
         ---\nrole: of-{name}\ndescription: D.\nmodel: {name}\nprompt: You answer briefly.\n\
         sampling: {{temperature: 0, max_tokens: 4}}\nlimits: {{retries: 0}}\n"
    )
}

async fn answer(daemon: &Daemon, role: &str) {
    daemon.run(task_request("Hello").with_role(role)).await.end().await.text();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nothing_uses_gives_its_memory_back() {
    let daemon = daemon().with_yaml(&(model("brief", "2s") + &model("long", "10m"))).start().await;
    answer(&daemon, "of-long").await;
    answer(&daemon, "of-brief").await;
    // It ends by itself.
    let ends = async { while engines(&daemon).await.contains_key("brief") {} };
    tokio::time::timeout(END_TIMEOUT, ends).await.expect("it ends");
    let long = engines(&daemon).await["long"].clone();
    assert!(long.idle_time.is_some() && long.unload_time.is_some() && !long.kept, "{long:?}");
    let (code, out, error) = daemon.cli(["engines"]).run().await;
    assert!(code == 0 && out.contains("idle ") && out.contains("unloads in "), "{code} {out} {error}");
    let (_, json, _) = daemon.cli(["engines", "--json"]).run().await;
    assert!(json.contains("\"idle_time_ms\"") && json.contains("\"unload_time\""), "{json}");
    let placement = daemon.engines().get_placement(v1::GetPlacementRequest::default()).await.unwrap().into_inner();
    let reason = placement.changes.iter().find(|change| change.model == "brief" && !change.loaded).unwrap();
    assert!(reason.reason.contains("nothing has used it for 2s"), "{reason:?}");
    answer(&daemon, "of-brief").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_model_gets_the_memory_of_those_that_are_kept_for_ever() {
    let yaml = model("a", "forever") + &model("b", "forever") + &model("c", "10m");
    let daemon = daemon().with_yaml(&yaml).with_settings("memory: {CPU: 900}\n").start().await;
    assert!(load(&daemon, "a").await.kept);
    load(&daemon, "b").await;
    let refused = daemon.engines().load(v1::LoadRequest { model: "c".to_owned() }).await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().reason, "INSUFFICIENT_MEMORY", "{refused:?}");
    for part in ["c does not fit", "have `keep: forever`", "`artel unload a` frees memory"] {
        assert!(refused.message().contains(part), "{part} in {}", refused.message());
    }
    // A plan says so before, whether or not it is for this model alone.
    for models in [vec!["c".to_owned()], Vec::new()] {
        let plan = daemon.engines().get_placement(v1::GetPlacementRequest { models }).await.unwrap().into_inner();
        let unplaced = plan.unplaced.iter().find(|unplaced| unplaced.model == "c").unwrap();
        let reason = &unplaced.reason;
        assert!(reason.contains("have `keep: forever`: it fits without a"), "{reason}");
        assert!(unplaced.device == "CPU" && unplaced.missing_bytes > 0, "{unplaced:?}");
        let stay = plan.placed.iter().filter(|placed| placed.loaded && placed.reason.contains("it stays loaded"));
        let stay: Vec<&str> = stay.map(|placed| placed.model.as_str()).collect();
        assert_eq!(stay, if plan.placed.is_empty() { vec![] } else { vec!["a", "b"] });
    }
    let (code, out, error) = daemon.cli(["engines"]).run().await;
    assert!(code == 0 && out.contains("kept"), "{code} {out} {error}");
    // As the message advises.
    daemon.engines().unload(v1::UnloadRequest { model: "a".to_owned(), interrupt: false }).await.unwrap();
    load(&daemon, "c").await;
    answer(&daemon, "of-c").await;
    let loaded = engines(&daemon).await;
    assert_eq!(["a", "b", "c"].map(|model| loaded.contains_key(model)), [false, true, true]);
}

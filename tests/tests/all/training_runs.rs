//! A role is trained, by the real trainer and with the demo model: from examples to an adapter that serves.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use artel_tests::{Daemon, DaemonBuilder, daemon, task_request, trainer_python};
use serde_json::{Value, json};

/// Parts of messages and the made-up department that each belongs to.
const DEPARTMENTS: [(&str, [&str; 4]); 3] = [
    ("zorbal", ["the lamp flickers", "my fan is loud", "the kettle leaks", "the clock runs late"]),
    ("mivent", ["I was charged twice", "send me an invoice", "my refund is missing", "the price is wrong"]),
    ("quasop", ["when do you open", "where is the shop", "do you open on Sunday", "is there a car park"]),
];
/// How a message begins: those of the last one are held out.
const BEGINNINGS: [&str; 5] = ["Hello, ", "Hi there: ", "Good morning, ", "Excuse me, ", "Dear team, "];

/// Far longer than a reload takes.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// The samples of some of the beginnings.
fn samples(beginnings: &[&str]) -> String {
    let mut lines = String::new();
    for beginning in beginnings {
        for (department, parts) in DEPARTMENTS {
            for part in parts {
                let _ = writeln!(lines, "{}", json!({"input": format!("{beginning}{part}"), "output": department}));
            }
        }
    }
    lines
}

fn catalog(model: &str, training: &str) -> String {
    format!(
        "model: small\nfile: SmolLM2-135M-Instruct.Q4_1.gguf\ncontext: 512\nsequences: 2\n{model}---\n{}---\n\
         training: sorting\nrole: sorter\ndata: train.jsonl\nheld_out: test.jsonl\n{training}",
        role("sorter")
    )
}

fn role(name: &str) -> String {
    format!(
        "role: {name}\ndescription: Sorts messages.\nmodel: small\nprompt: You sort messages.\n\
         message: 'Message: {{{{ task.input }}}}'\nsampling: {{temperature: 0, max_tokens: 12}}\n"
    )
}

fn training_daemon(model: &str, training: &str) -> DaemonBuilder {
    let settings = format!("trainer_python: {}\n", trainer_python().display());
    daemon()
        .with_yaml(&catalog(model, training))
        .with_settings(&settings)
        .with_file("train.jsonl", samples(&BEGINNINGS[..4]).as_bytes())
        .with_file("test.jsonl", samples(&BEGINNINGS[4..]).as_bytes())
}

/// What a command prints as JSON, its last line, and its exit code.
async fn told(daemon: &Daemon, args: &[&str]) -> (i32, Value) {
    let cli = args.iter().fold(daemon.cli(["--json"]), |cli, arg| cli.arg(arg));
    let (code, out, err) = cli.run().await;
    let last = out.lines().last().unwrap_or_else(|| panic!("{args:?}: {err}"));
    (code, serde_json::from_str(last).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_learns_from_examples_and_serves_with_the_adapter() {
    let schedule = "method: {lora: {rank: 8}}\nschedule: {epochs: 6, batch: 8, learning_rate: 0.002}\n";
    let daemon = training_daemon("", schedule).start().await;
    let (code, trainer) = told(&daemon, &["train", "setup"]).await;
    assert_eq!((code, &trainer["state"]), (0, &json!("ready")), "{trainer}");
    let (code, run) = told(&daemon, &["train", "start", "sorting"]).await;
    assert_eq!((code, &run["state"], &run["run"]), (0, &json!("succeeded"), &json!("sorting.1")), "{run}");
    let loss = |name: &str| run["losses"][name].as_f64().unwrap_or_else(|| panic!("{name}: {run}"));
    assert!(loss("after") < loss("before") / 3.0 && loss("served") < loss("served_before") / 3.0, "{run}");
    assert!((loss("checked") - loss("after")).abs() <= (loss("after") * 0.01).max(0.002), "{run}");
    assert_eq!((&run["data"]["train"], &run["data"]["held_out"]), (&json!(48), &json!(12)));
    let (_, shown) = told(&daemon, &["train", "show", "sorting.1"]).await;
    assert_eq!(shown["curve"].as_array().unwrap().len(), 36, "a point for each step");
    let catalog_dir = daemon.dir().join("catalog");
    for format in ["gguf", "peft"] {
        let dir = catalog_dir.join(format);
        let (code, files) =
            told(&daemon, &["train", "export", "sorting.1", dir.to_str().unwrap(), "--format", format]).await;
        assert_eq!(code, 0, "{files}");
        assert!(fs::read_dir(&dir).unwrap().count() > 0);
    }
    let with_adapter = format!("{}---\n{}adapter: gguf/adapter.gguf\n", catalog("", schedule), role("sorter-now"));
    fs::write(catalog_dir.join("test.yaml"), with_adapter).unwrap();
    let reloaded = async { while daemon.submit(task_request("x").with_role("sorter-now")).await.is_err() {} };
    tokio::time::timeout(RELOAD_TIMEOUT, reloaded).await.expect("the catalog is reloaded when a file changes");
    for (department, parts) in DEPARTMENTS {
        // Beginning and part were never seen together.
        let input = format!("Dear team, {}", parts[0]);
        assert_eq!(daemon.run(task_request(&input).with_role("sorter-now")).await.end().await.text(), department);
    }
    let (code, deleted) = told(&daemon, &["train", "delete", "sorting.1"]).await;
    assert_eq!((code, &deleted["deleted"]), (0, &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_differs_by_a_space_is_found_before_anything_is_trained() {
    let template = "template: \"{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                    ' <|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\"\n";
    let daemon = training_daemon(template, "").start().await;
    let (code, run) = told(&daemon, &["train", "start", "sorting"]).await;
    assert_eq!((code, &run["state"]), (1, &json!("failed")), "{run}");
    let error = run["error"].as_str().unwrap();
    assert!(error.starts_with("train.jsonl:1: "), "{error}");
    assert!(run["progress"].is_null(), "no step was taken: {run}");
}

//! Programs that speak OpenAI's API, as their users run them. Those of frameworks need packages that `cargo xtask clients` installs;
//! it runs them all.

use artel_tests::client_scripts::{ClientPackages, ScriptOutput, client_daemon, run_checks, run_example};
use serde_json::json;

/// Fails with all lines of the script unless each of its checks passed.
fn assert_passed(name: &str, output: &ScriptOutput) {
    let ScriptOutput { code, out, err } = output;
    let passed = out.lines().filter(|line| line.starts_with("ok ")).count();
    let others = out.lines().count() - passed;
    assert!(*code == 0 && passed > 0 && others == 0, "{name} ended with {code}, {passed} checks passed:\n{out}{err}");
    println!("{name}:\n{out}");
}

async fn assert_checks_pass(name: &str, packages: ClientPackages) {
    let daemon = client_daemon().start().await;
    assert_passed(name, &run_checks(&daemon, name, packages, &[]).await);
}

/// Fails unless an example of the book ran to its end and printed something.
async fn assert_example_runs(name: &str, packages: ClientPackages) {
    let ScriptOutput { code, out, err } = run_example(name, packages).await;
    assert!(code == 0 && !out.trim().is_empty(), "{name} ended with {code}:\n{out}{err}");
    println!("{name}:\n{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_package_for_python() {
    assert_checks_pass("python_openai.py", ClientPackages::Openai).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_package_for_node() {
    assert_checks_pass("openai.mjs", ClientPackages::Openai).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_fails_is_told() {
    for name in ["python_openai.py", "openai.mjs"] {
        let daemon = client_daemon().with_failpoints(&json!({"replies": [{"say": "wrong"}]})).start().await;
        let checks = ["models", "stream"];
        let ScriptOutput { code, out, err } = run_checks(&daemon, name, ClientPackages::Openai, &checks).await;
        let lines: Vec<&str> = out.lines().collect();
        assert!(code == 1 && lines.len() == 2, "{name} ended with {code}:\n{out}{err}");
        assert!(lines[0] == "ok models" && lines[1].starts_with("FAIL stream: "), "{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of `cargo xtask clients`, which runs it"]
async fn langchain_and_langgraph() {
    assert_checks_pass("langchain_clients.py", ClientPackages::Frameworks).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of `cargo xtask clients`, which runs it"]
async fn litellm() {
    assert_checks_pass("litellm_client.py", ClientPackages::Frameworks).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of `cargo xtask clients`, which runs it"]
async fn the_ai_sdk() {
    assert_checks_pass("ai_sdk.mjs", ClientPackages::Frameworks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_example_for_python() {
    assert_example_runs("openai_python.py", ClientPackages::Openai).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_example_for_node() {
    assert_example_runs("openai_node.mjs", ClientPackages::Openai).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of `cargo xtask clients`, which runs it"]
async fn the_books_example_of_langchain() {
    assert_example_runs("langchain_example.py", ClientPackages::Frameworks).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of `cargo xtask clients`, which runs it"]
async fn the_books_example_of_litellm() {
    assert_example_runs("litellm_example.py", ClientPackages::Frameworks).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of `cargo xtask clients`, which runs it"]
async fn the_books_example_of_the_ai_sdk() {
    assert_example_runs("ai_sdk.mjs", ClientPackages::Frameworks).await;
}

use std::sync::Arc;

use serde_json::{Value, json};

use super::{fake::FakeNode, *};
use crate::api::types::PairEvent;

fn resources() -> (Arc<FakeNode>, Resources<FakeNode>) {
    let node = Arc::new(FakeNode::default());
    (Arc::clone(&node), Resources::new(node, watch::Sender::new(false)))
}

async fn ask(resources: &Resources<FakeNode>, verb: Verb, path: &str, body: &str) -> (u16, Value) {
    let path = path.parse().expect("a clean path");
    let request = Request::new(verb, path, body.as_bytes().to_vec()).expect("a small body");
    match resources.serve(request).await {
        Reply::Once(response) => {
            let value = serde_json::from_slice(&response.body).expect("JSON in every answer");
            (response.status, value)
        }
        Reply::Events(_) => (200, json!("events")),
    }
}

#[tokio::test]
async fn every_resource_answers() {
    let (_, resources) = resources();
    let cases = [
        (Verb::Get, "/v1/status", "", 200),
        (Verb::Get, "/v1/devices", "", 200),
        (Verb::Put, "/v1/devices/desktop", r#"{"role":"admin"}"#, 200),
        (Verb::Put, "/v1/devices/desktop", r#"{"role":"device"}"#, 200),
        (Verb::Delete, "/v1/devices/desktop", r#"{"void":true}"#, 200),
        (Verb::Post, "/v1/devices/desktop", "", 200),
        (Verb::Get, "/v1/log", "", 200),
        (Verb::Get, "/v1/log/3", "", 200),
        (Verb::Get, "/v1/caps", "", 200),
        (Verb::Get, "/v1/quarantine", "", 200),
        (Verb::Post, "/v1/quarantine", r#"{"folder":"desktop","device":"phone","paths":["a/b"]}"#, 200),
        (Verb::Get, "/v1/pairing", "", 404),
        (Verb::Post, "/v1/pairing", r#"{"yes":true}"#, 201),
        (Verb::Post, "/v1/pairing/confirm", r#"{"yes":true}"#, 200),
        (Verb::Get, "/v1/pairing", "", 200),
        (Verb::Delete, "/v1/pairing", "", 200),
        (Verb::Post, "/v1/join", r#"{"code":"7-apple-river-stone","at":"127.0.0.1:1"}"#, 200),
        (Verb::Post, "/v1/folders", r#"{"path":"/tmp/x","title":"Notes"}"#, 201),
        (Verb::Get, "/v1/folders", "", 200),
        (Verb::Get, "/v1/folders/Notes", "", 200),
        (Verb::Put, "/v1/folders/Notes", r#"{"path":"/tmp/y"}"#, 201),
        (Verb::Get, "/v1/folders/f0/status", "", 200),
        (Verb::Get, "/v1/recovery", "", 200),
        (
            Verb::Post,
            "/v1/recovery/confirm",
            r#"{"words":[{"position":1,"word":"army"},{"position":3,"word":"cave"}]}"#,
            200,
        ),
        (Verb::Get, "/v1/recovery", "", 410),
        (Verb::Post, "/v1/recovery/use", r#"{"phrase":"army","readmit":"desktop"}"#, 200),
        (Verb::Post, "/v1/recovery/use", r#"{"phrase":"army","remove":"desktop","void":true}"#, 200),
        (Verb::Post, "/v1/recovery/rotate", r#"{"phrase":"army boat"}"#, 200),
        (Verb::Get, "/v1/recovery", "", 200),
        (Verb::Post, "/v1/recovery/restore", r#"{"phrase":"army boat","at":["127.0.0.1:1"]}"#, 200),
        (Verb::Get, "/v1/events", r#"{"since":0}"#, 200),
        (Verb::Post, "/v1/shutdown", "", 202),
    ];
    for (verb, path, body, status) in cases {
        let (got, value) = ask(&resources, verb, path, body).await;
        assert_eq!(got, status, "{verb} {path}: {value}");
    }
    assert!(*resources.stopping().borrow());
}

#[tokio::test]
async fn what_cannot_be_done_is_an_answer_with_two_sentences() {
    let (node, resources) = resources();
    node.folder_add(FolderAdd { path: "/tmp/x".to_owned(), title: Some("Twin".to_owned()) }).await.expect("added");
    node.folder_add(FolderAdd { path: "/tmp/y".to_owned(), title: Some("Twin".to_owned()) }).await.expect("added");
    let cases = [
        (Verb::Get, "/v1/nothing", "", 404, "not_found"),
        (Verb::Get, "/v2/status", "", 404, "not_found"),
        (Verb::Delete, "/v1/status", "", 405, "wrong_verb"),
        (Verb::Get, "/v1/shutdown", "", 405, "wrong_verb"),
        (Verb::Delete, "/v1/devices/nobody", "", 404, "not_found"),
        (Verb::Delete, "/v1/devices/desktop", r#"{"keep":1}"#, 400, "bad_request"),
        (Verb::Put, "/v1/devices/desktop", r#"{"role":"king"}"#, 400, "bad_request"),
        (Verb::Post, "/v1/devices/nobody", "", 404, "not_found"),
        (Verb::Post, "/v1/quarantine", "", 400, "bad_request"),
        (Verb::Delete, "/v1/quarantine", "", 405, "wrong_verb"),
        (Verb::Post, "/v1/recovery/use", r#"{"phrase":"a","remove":"x","readmit":"y"}"#, 400, "bad_request"),
        (Verb::Get, "/v1/log/last", "", 400, "bad_request"),
        (Verb::Post, "/v1/recovery/restore", r#"{"phrase":"cave"}"#, 403, "not_root"),
        (Verb::Post, "/v1/recovery/restore", r#"{"words":"cave"}"#, 400, "bad_request"),
        (Verb::Get, "/v1/recovery/rotate", "", 405, "wrong_verb"),
        (Verb::Post, "/v1/recovery/rotate", r#"{"phrase":"cave"}"#, 403, "not_root"),
        (Verb::Post, "/v1/recovery/use", r#"{"words":["army"]}"#, 400, "bad_request"),
        (Verb::Post, "/v1/events", "", 405, "wrong_verb"),
        (Verb::Post, "/v1/pairing", r#"{"yes":1}"#, 400, "bad_request"),
        (Verb::Post, "/v1/pairing", r#"{"sure":true}"#, 400, "bad_request"),
        (Verb::Post, "/v1/pairing/confirm", "", 400, "bad_request"),
        (Verb::Post, "/v1/join", r#"{"code":" "}"#, 400, "bad_request"),
        (Verb::Post, "/v1/join", r#"{"code":"8-apple"}"#, 403, "wrong_code"),
        (Verb::Post, "/v1/folders", r#"{"path":"notes"}"#, 400, "bad_request"),
        (Verb::Post, "/v1/folders", r#"{"path":"/a","title":"a/b"}"#, 400, "bad_request"),
        (Verb::Post, "/v1/folders", "[", 400, "bad_request"),
        (Verb::Get, "/v1/folders/None", "", 404, "not_found"),
        (Verb::Get, "/v1/folders/Twin", "", 409, "ambiguous"),
        (Verb::Put, "/v1/folders/Twin", r#"{"path":"../x"}"#, 400, "bad_request"),
        (Verb::Post, "/v1/recovery/confirm", r#"{"words":[{"position":1,"word":"army"}]}"#, 400, "bad_request"),
        (
            Verb::Post,
            "/v1/recovery/confirm",
            r#"{"words":[{"position":1,"word":"army"},{"position":1,"word":"army"}]}"#,
            400,
            "bad_request",
        ),
    ];
    for (verb, path, body, status, code) in cases {
        let (got, value) = ask(&resources, verb, path, body).await;
        assert_eq!((got, value["code"].as_str()), (status, Some(code)), "{verb} {path}: {value}");
        for sentence in ["message", "fix"] {
            assert!(value[sentence].as_str().is_some_and(|text| text.ends_with('.')), "{verb} {path}: {value}");
        }
    }
    assert!(!*resources.stopping().borrow());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_pairing_answers_that_nothing_came() {
    let (node, resources) = resources();
    ask(&resources, Verb::Post, "/v1/pairing", "").await;
    assert_eq!(ask(&resources, Verb::Get, "/v1/pairing", "").await, (200, json!({ "event": null })));
    node.pairing_event(PairEvent::Expired);
    let (_, value) = ask(&resources, Verb::Get, "/v1/pairing", "").await;
    assert_eq!(value, json!({ "event": { "state": "expired" } }));
}

#[test]
fn the_state_of_a_folder_is_a_field_beside_the_others() {
    let status = FolderStatus {
        id: "f".to_owned(),
        title: "Notes".to_owned(),
        path: "/n".to_owned(),
        state: crate::api::types::FolderState::Stopped { reason: "The disk is full.".to_owned() },
        files: 1,
        bytes: 2,
        waiting_files: 3,
        waiting_bytes: 4,
        missing_files: 1,
        rate: 5,
        conflicts: 6,
        problems: vec![],
    };
    let value = serde_json::to_value(&status).expect("JSON");
    assert_eq!((&value["state"], &value["reason"]), (&json!("stopped"), &json!("The disk is full.")));
    assert_eq!(serde_json::from_value::<FolderStatus>(value).expect("the same back"), status);
}

//! The OpenAPI document is part of the interface: it changes only together with its golden file.
//! `UPDATE_GOLDEN=1 cargo test -p conmon --test openapi` rewrites the file.

use std::collections::BTreeSet;
use std::path::Path;

use conmon::api::path;

fn golden_file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/conmon.json")
}

#[test]
fn document_equals_the_golden_file() {
    let mut generated = conmon::openapi().to_pretty_json().expect("the document is serialisable");
    generated.push('\n');
    let file = golden_file();
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(&file, &generated).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&file).expect("openapi/conmon.json is there");
    let difference = generated.lines().zip(golden.lines()).position(|(new, old)| new != old);
    assert!(
        generated == golden,
        "the API's document differs from openapi/conmon.json (first at line {}); if that is meant, run \
         `UPDATE_GOLDEN=1 cargo test -p conmon --test openapi` and note the change in CHANGELOG.md",
        difference.unwrap_or_else(|| generated.lines().count().min(golden.lines().count())) + 1
    );
}

#[test]
fn every_route_is_documented_and_no_other() {
    let document = conmon::openapi();
    let documented: BTreeSet<&str> = document.paths.paths.keys().map(String::as_str).collect();
    let routes = BTreeSet::from([
        path::CONTAINERS,
        path::MONITORS,
        path::PAIRS,
        path::MATRIX,
        path::ENDS,
        path::CLOCKS,
        path::CLOCK_SESSION,
        path::FLOWS,
        path::MEASUREMENTS,
        path::EVENTS,
        path::HEALTH,
        path::LEDGER,
        path::STATUS,
        path::DOCTOR,
        path::OPENAPI,
        path::METRICS,
    ]);
    assert_eq!(documented, routes);
}

/// Every reference leads somewhere: a type that is used in an answer but not registered would break generated clients.
#[test]
fn references_are_resolved() {
    let document: serde_json::Value =
        serde_json::from_str(&conmon::openapi().to_json().expect("serialisable")).expect("valid JSON");
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20, "references are there: {references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("references are local");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    serde_json::Value::String(reference) if name == "$ref" => {
                        found.insert(reference.clone());
                    }
                    _ => collect_references(field, found),
                }
            }
        }
        serde_json::Value::Array(elements) => {
            elements.iter().for_each(|element| collect_references(element, found))
        }
        _ => {}
    }
}

/// Over TLS everything needs a certificate or a token, and whoever generates a client from the document is told.
#[test]
fn every_route_says_who_may_ask() {
    let document: serde_json::Value =
        serde_json::from_str(&conmon::openapi().to_json().expect("serialisable")).expect("valid JSON");
    let schemes = document["components"]["securitySchemes"].as_object().expect("schemes");
    assert_eq!(schemes["certificate"]["type"], "mutualTLS");
    assert_eq!(
        (&schemes["tenant_token"]["type"], &schemes["tenant_token"]["scheme"]),
        (&"http".into(), &"bearer".into())
    );
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let security =
                operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path}: for anybody"));
            assert_eq!(security.len(), 2, "{method} {path}: {security:?}");
            assert!(operation["responses"]["401"].is_object() && operation["responses"]["403"].is_object());
        }
    }
}

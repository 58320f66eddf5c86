//! What is shipped for operators speaks of what the program has.

use std::{collections::BTreeSet, fs, path::Path};

use meshwork_host::config;
use meshwork_relay::{
    data::{DataConfig, DataPort},
    service::RelaySettings,
};
use serde::Deserialize;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("meshwork_relay_")).collect()
}

#[tokio::test]
async fn every_metric_of_rules_and_dashboard_exists() {
    let config = DataConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        unpaired: 1,
        unpaired_per_ip: 1,
        pairs: 1,
        idle: std::time::Duration::from_secs(1),
        device_rate: 0,
        total_rate: 0,
        monthly_bytes: 0,
        budget_file: None,
    };
    let text = DataPort::bind(config).await.expect("bind").handle().metrics();
    let known: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for file in ["ops/alerts.yml", "ops/dashboard.json"] {
        let text = read(file);
        let used = names(&text);
        assert!(used.len() >= 4, "{file} names metrics");
        assert!(used.is_subset(&known), "{file}: {:?}", used.difference(&known));
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    service: RelaySettings,
}

/// Uncommented, the defaults that the file tells are the defaults.
#[test]
fn the_commented_defaults_are_the_defaults() {
    let text: String = read("src/config.toml").lines().map(uncommented).collect();
    let home = tempfile::tempdir().expect("temporary directory");
    let path = home.path().join("config.toml");
    fs::write(&path, text).expect("write");
    let mut told = config::load::<File>(&path, config::Table::new()).expect("load").service;
    assert!(told.data.listen.take().is_some(), "the data port is on in a new home");
    assert_eq!(told, RelaySettings::default());
}

fn uncommented(line: &str) -> String {
    let line = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
    format!("{line}\n")
}

//! Every file under `examples/` becomes a running data layer.
use std::path::Path;

use anyhow::{Context as _, ensure};
use azora_tests::layer::{Layer, READY_IN_COMPANY};
use azora_tests::trial::{Company, trial};
use serde_json::Value;

#[tokio::test]
async fn every_example_can_be_applied_and_becomes_ready() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        files.push(entry.context("list the examples")?.path());
    }
    files.sort();
    ensure!(!files.is_empty(), "there are no examples in {}", folder.display());
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let manifest: Value = serde_norway::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
        assert_eq!(manifest["kind"], "AzoraDataLayer", "{} is no data layer", file.display());
        assert!(manifest["metadata"]["namespace"].is_null(), "{} names a namespace", file.display());
        trial("example", Company::Shared, async |trial| {
            let layer = Layer::apply_manifest(trial, &manifest).await?;
            layer.ready(READY_IN_COMPANY).await?;
            let types = layer.nexus().await?.get("/v1/event-types").await?;
            assert_eq!(types["types"].as_array().map(Vec::len), Some(16), "{types}");
            Ok(())
        })
        .await
        .with_context(|| format!("apply {}", file.display()))?;
    }
    Ok(())
}

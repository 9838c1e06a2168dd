//! Both engines against the suite, and what only a file can do.

use cumulet_store::{
    Batch, Change, EmbeddedEngine, Engine, Kind, MemoryEngine, StoreError, conformance,
};

#[test]
fn the_memory_engine_conforms() {
    let engine = MemoryEngine::default();
    conformance::run(|| Box::new(engine.clone()));
}

#[test]
fn the_embedded_engine_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    conformance::run(|| Box::new(EmbeddedEngine::open(&path, conformance::KINDS).unwrap()));
}

#[test]
fn a_kind_of_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let future = Kind::new("future");
    let mut engine = EmbeddedEngine::open(&path, &[future]).unwrap();
    engine
        .commit(&Batch {
            preconditions: vec![],
            changes: vec![Change::put(future, "x", vec![1].into())],
        })
        .unwrap();
    drop(engine);
    let before = std::fs::read(&path).unwrap();
    let refused = EmbeddedEngine::open(&path, conformance::KINDS).err();
    assert!(matches!(refused, Some(StoreError::UnknownKind(kind)) if kind == "future"));
    assert!(std::fs::read(&path).unwrap() == before, "not a byte");
}

#[test]
fn a_newer_format_is_refused_and_not_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    drop(EmbeddedEngine::open(&path, conformance::KINDS).unwrap());
    {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(redb::TableDefinition::<&str, u64>::new("meta"))
            .unwrap()
            .insert("format", 99)
            .unwrap();
        transaction.commit().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    for _ in 0..2 {
        let refused = EmbeddedEngine::open(&path, conformance::KINDS).err();
        assert!(matches!(
            refused,
            Some(StoreError::NewerFormat { found: 99, .. })
        ));
        assert!(std::fs::read(&path).unwrap() == before, "not a byte");
    }
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let _first = EmbeddedEngine::open(&path, conformance::KINDS).unwrap();
    assert!(matches!(
        EmbeddedEngine::open(&path, conformance::KINDS).err(),
        Some(StoreError::InUse)
    ));
}

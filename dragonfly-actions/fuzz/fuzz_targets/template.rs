#![no_main]
//! Whatever a template says, it is a plan or has problems with paths, never a panic.
use dragonfly_actions::plan::Catalog;
use dragonfly_core::action::TemplateChecker;
use dragonfly_core::resource::TemplateSpec;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(template) = serde_json::from_str::<TemplateSpec>(text) else { return };
    for problem in Catalog::builtin().check(&template) {
        assert!(problem.path.starts_with("actions") && !problem.problem.is_empty(), "{problem:?}");
    }
});

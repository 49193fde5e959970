//! Whatever a template says, it is a plan or has problems with paths, never a panic.
use dragonfly_actions::plan::Catalog;
use dragonfly_core::action::TemplateChecker;
use dragonfly_core::resource::TemplateSpec;

/// One input.
pub(crate) fn template(bytes: &[u8]) {
    let Ok(template) = serde_json::from_slice::<TemplateSpec>(bytes) else { return };
    for problem in Catalog::builtin().check(&template) {
        assert!(problem.path.starts_with("actions") && !problem.problem.is_empty(), "{problem:?}");
    }
}

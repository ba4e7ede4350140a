// SPDX-License-Identifier: AGPL-3.0-only
//! What the user wrote, wherever it was written: finds the file, lays the environment over it. What it means is asked
//! later, by those who know.

use std::path::{Path, PathBuf};

use super::document::Document;
use super::report::Problems;
use super::value::{Origin, Value};
use crate::LogSettings;

/// Where a file in our own form is looked for when none is named: the working folder, then the root of an image.
const OURS: [&str; 2] = ["holdfast.toml", "/holdfast.toml"];

/// The same in another program's form, where that can be translated.
const THEIRS: [&str; 2] = ["config.json", "/config.json"];

/// Reads a JSON file in another program's form, with the environment's variables for what that program takes from them.
pub type Translate = fn(&Path, &[(String, String)]) -> Result<Translated, Problems>;

/// A file of another program's in our own terms.
#[derive(Debug)]
pub struct Translated {
    /// What it says.
    pub document: Document,
    /// What it says that has no meaning here.
    pub warnings: Vec<String>,
}

/// What was written, before it is read.
#[derive(Debug)]
pub struct Written {
    /// File and environment, as one.
    pub document: Document,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Whether the file has the form of another program, whose pages are served too.
    pub translated: bool,
    /// What the file says that has no meaning here.
    pub warnings: Vec<String>,
    translate: Option<Translate>,
}

impl Written {
    /// Finds and parses what was written: in the file that is named or else the first that is there, and in this
    /// process's environment.
    ///
    /// # Errors
    /// A file can't be read or is none; what it says is not judged here.
    pub fn find(named: Option<&Path>, translate: Option<Translate>) -> Result<Self, Problems> {
        let theirs: &[&str] = if translate.is_some() { &THEIRS } else { &[] };
        let found = || OURS.iter().chain(theirs).map(PathBuf::from).find(|file| file.is_file());
        Self::of(named.map(Path::to_owned).or_else(found), crate::environment(), translate)
    }

    /// The same from this file, or none, and these variables.
    ///
    /// # Errors
    /// See [`Written::find`].
    pub fn of(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
        translate: Option<Translate>,
    ) -> Result<Self, Problems> {
        let environment: Vec<_> = environment.into_iter().collect();
        let is_json = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
        let (mut document, translated, warnings) = match (&file, translate) {
            (Some(path), Some(translate)) if is_json(path) => {
                let Translated { document, warnings } = translate(path, &environment)?;
                (document, true, warnings)
            }
            (Some(path), _) => (Document::load(path)?, false, Vec::new()),
            (None, _) => (Document::empty(), false, Vec::new()),
        };
        document.environment(environment);
        Ok(Self { document, file, translated, warnings, translate })
    }

    /// Sets a key as if by an argument.
    pub fn set(&mut self, path: &str, value: Value, argument: &str) {
        self.document.set(path, value, Origin::Argument(argument.to_owned()));
    }

    /// Reads the level of the log anew from the same file, each time that it is called.
    pub(crate) fn level(&self) -> impl Fn() -> Result<String, String> + Send + 'static {
        let (file, translate) = (self.file.clone(), self.translate);
        move || {
            let again = Self::of(file.clone(), crate::environment(), translate);
            let again = again.map_err(|problems| problems.to_string())?;
            // Nobody asks for the other sections here: that they are unknown means nothing.
            let reading = again.document.read(|root| root.section("log", LogSettings::read));
            match reading.problems.iter().find(|problem| problem.path.starts_with("log")) {
                Some(problem) => Err(problem.to_string()),
                None => Ok(reading.value.level),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_read_anew_from_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("holdfast.toml");
        std::fs::write(&path, "[ws]\nlisten = 1\n[log]\nlevel = \"debug\"\n").expect("writes");
        let level = Written::of(Some(path.clone()), [], None).expect("TOML").level();
        assert_eq!(level(), Ok("debug".to_owned()));
        std::fs::write(&path, "[log]\nlevel = \"loud\"\n").expect("writes");
        assert!(level().is_err());
    }

    #[test]
    fn a_file_in_another_form_is_translated_and_the_environment_lies_over_it() {
        let translate: Translate = |path, environment| {
            let mut document = Document::empty();
            document.set("file", Value::Text(path.display().to_string()), Origin::Argument("test".into()));
            document.set("log.level", Value::Text("warn".into()), Origin::Argument("test".into()));
            Ok(Translated { document, warnings: vec![environment.len().to_string()] })
        };
        let environment = [("HOLDFAST__LOG__LEVEL".to_owned(), "debug".to_owned())];
        let file = || Some(PathBuf::from("theirs.json"));
        let written = Written::of(file(), environment.clone(), Some(translate)).expect("translates");
        assert!(written.translated && written.warnings == ["1"]);
        assert_eq!(
            written.document.get("file").map(|node| &node.value),
            Some(&Value::Text("theirs.json".into()))
        );
        let level = written.document.get("log.level").expect("set").value.clone();
        assert_eq!(level, Value::Text("debug".into()));
        // Where nobody can translate, it is a file of ours that can't be read.
        let problems = Written::of(file(), environment, None).expect_err("not there");
        assert!(problems.to_string().contains("theirs.json"), "{problems}");
    }
}

//! The environment of the user process: the image's ENV, the bundle's variables over it, exact bytes.

use std::ffi::CString;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::InitError;

/// `PATH` of an image that sets none (Docker's default).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in order, each name once.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Names only: values are secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self
            .variables
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name));
        formatter.debug_list().entries(names).finish()
    }
}

impl Environment {
    /// ENV of the image, then `bundle` (values are base64) over it, then `EV_INITIALIZED=true`.
    ///
    /// # Errors
    ///
    /// A name that is empty or holds `=`, a value that is not base64, or a zero byte in either. The
    /// message names the variable and never its value.
    pub fn merge(
        image: &[(String, String)],
        bundle: &[(String, String)],
    ) -> Result<Self, InitError> {
        let mut environment = Self::default();
        for (name, value) in image {
            environment.set(name, value.as_bytes().to_vec())?;
        }
        for (name, value) in bundle {
            let value = STANDARD.decode(value).map_err(|_| {
                InitError::new(format!("variable `{}` is not base64", name.escape_debug()))
            })?;
            environment.set(name, value)?;
        }
        environment.set("EV_INITIALIZED", b"true".to_vec())?;
        environment.set_default("PATH", DEFAULT_PATH);
        Ok(environment)
    }

    /// Sets a variable, unless it has a value that is not empty.
    pub fn set_default(&mut self, name: &str, value: &str) {
        if self.value(name).is_none_or(<[u8]>::is_empty) {
            let _ = self.set(name, value.as_bytes().to_vec());
        }
    }

    /// The value of a variable.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.variables
            .iter()
            .find(|(other, _)| other == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    /// As `execve` takes it.
    pub fn strings(&self) -> Vec<CString> {
        self.variables
            .iter()
            .filter_map(|(name, value)| CString::new([name, &b"="[..], value].concat()).ok())
            .collect()
    }

    fn set(&mut self, name: &str, value: Vec<u8>) -> Result<(), InitError> {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains(&0) {
            return Err(InitError::new(format!(
                "variable `{}` cannot be in an environment",
                name.escape_debug()
            )));
        }
        match self
            .variables
            .iter_mut()
            .find(|(other, _)| other == name.as_bytes())
        {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.as_bytes().to_vec(), value)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn the_bundle_lies_over_the_image_and_bytes_stay_exact() {
        let secret = b"line one\n\"quoted\" \xff $HOME";
        let image = [pair("A", "image"), pair("B", "kept"), pair("PATH", "/bin")];
        let bundle = [pair("A", &STANDARD.encode(secret))];
        let environment = Environment::merge(&image, &bundle).unwrap();
        assert_eq!(environment.value("A"), Some(secret.as_slice()));
        assert_eq!(environment.value("B"), Some(b"kept".as_slice()));
        assert_eq!(environment.value("PATH"), Some(b"/bin".as_slice()));
        assert_eq!(
            environment.value("EV_INITIALIZED"),
            Some(b"true".as_slice())
        );
        assert_eq!(environment.strings().len(), 4);
    }

    #[test]
    fn what_execve_could_not_carry_is_refused_by_name() {
        for (name, value) in [("", "QQ=="), ("A=B", "QQ=="), ("A", "AA=="), ("A", "?")] {
            let error = Environment::merge(&[], &[pair(name, value)]).unwrap_err();
            assert!(error.to_string().starts_with("variable"), "{error}");
        }
        Environment::merge(&[], &[pair("A", "QQ==")]).unwrap();
    }

    #[test]
    fn values_are_not_in_debug_output() {
        let environment = Environment::merge(&[pair("A", "hidden")], &[]).unwrap();
        let shown = format!("{environment:?}");
        assert!(shown.contains('A') && !shown.contains("hidden"), "{shown}");
    }
}

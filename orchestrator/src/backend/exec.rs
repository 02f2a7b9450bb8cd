//! The exec backend: any command that yields an agent's standard input and output on a host.
//!
//! The command is a template of words, quoted as in a shell but run without one; `{host}` and `{binary}` stand for the host's name and
//! the path of the node binary there. So whatever a testbed offers can be used: OpenSSH with all of its features, `kubectl exec -i`, `srun`.

use std::process::Stdio;

use tokio::process::Command;

use super::{AgentConnection, AgentProcess, BackendError};

/// Templates by name.
pub const PRESETS: [(&str, &str); 5] = [
    ("ssh", "ssh -T -o BatchMode=yes {host} {binary} agent"),
    ("kubectl", "kubectl exec -i {host} -- {binary} agent"),
    ("docker", "docker exec -i {host} {binary} agent"),
    ("srun", "srun --nodelist={host} --nodes=1 --ntasks=1 --overlap --unbuffered {binary} agent"),
    ("oarsh", "oarsh {host} {binary} agent"),
];

/// The words of a command, with places for the host and the binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    words: Vec<String>,
}

/// What is wrong with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no word in it.
    #[error("the command is empty")]
    Empty,
    /// A quote is not closed, or nothing follows a backslash.
    #[error("a quote in the command is not closed")]
    Open,
    /// All hosts would be the same.
    #[error("the command has no {{host}} in it: it would reach the same host each time")]
    NoHost,
}

impl Template {
    /// Reads a preset's name, or a template.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let preset = PRESETS.iter().find(|(name, _)| *name == text.trim());
        let text = preset.map_or(text, |(_, template)| template);
        let words = words(text)?;
        if words.is_empty() {
            return Err(TemplateError::Empty);
        }
        if !words.iter().any(|word| word.contains("{host}")) {
            return Err(TemplateError::NoHost);
        }
        Ok(Template { words })
    }

    /// The command for one host.
    pub fn command(&self, host: &str, binary: &str) -> Vec<String> {
        // One place after the other, so that a host's name is not searched for places.
        let fill = |word: &String| {
            let parts: Vec<String> =
                word.split("{host}").map(|part| part.replace("{binary}", binary)).collect();
            parts.join(host)
        };
        self.words.iter().map(fill).collect()
    }
}

/// Starts the agent that `command` leads to.
pub(super) fn start(command: &[String]) -> Result<AgentConnection, BackendError> {
    let (program, arguments) = command.split_first().expect("a template has words");
    // A group of its own, so that Ctrl-C at a terminal reaches only the orchestrator.
    let child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| BackendError::Start { program: command.join(" ").into(), source })?;
    Ok(AgentProcess::connection(child))
}

/// Splits a text into words at white space, but for what is in quotes or after a backslash.
fn words(text: &str) -> Result<Vec<String>, TemplateError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            (_, Some(open)) if character == open => quote = None,
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().push(characters.next().ok_or(TemplateError::Open)?);
            }
            (_, Some(_)) => word.get_or_insert_default().push(character),
            ('\'' | '"', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            (_, None) => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(TemplateError::Open);
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_in_a_shell_and_places_filled() {
        let template = Template::parse(r#"run -o "a b" 'c"d' e\ f '' {host}:{binary} agent"#).unwrap();
        let command = template.command("h{binary}1", "/opt/p2ps node");
        assert_eq!(command, ["run", "-o", "a b", "c\"d", "e f", "", "h{binary}1:/opt/p2ps node", "agent"]);
    }

    #[test]
    fn presets_are_templates() {
        for (name, _) in PRESETS {
            let command = Template::parse(name).unwrap().command("host-7", "/bin/p2ps-node");
            assert_eq!(command[0], name);
            assert!(command.iter().any(|word| word.contains("host-7")), "{command:?}");
            assert_eq!(command[command.len() - 2..], ["/bin/p2ps-node", "agent"]);
        }
    }

    #[test]
    fn what_cannot_be_a_command_is_refused() {
        let cases = [
            ("", TemplateError::Empty),
            ("run 'x {host}", TemplateError::Open),
            ("run {host}\\", TemplateError::Open),
            ("run agent", TemplateError::NoHost),
        ];
        for (text, error) in cases {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
    }
}

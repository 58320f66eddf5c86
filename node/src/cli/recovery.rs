//! `mesh recovery`: the phrase is written down, used and replaced.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

use zeroize::Zeroizing;

use super::{
    Context,
    arguments::{Node, Recovery},
    error::{CliError, Exit},
    pair::read_line,
    screen::short,
    up,
};
use crate::{
    api::types::{RecoveryConfirm, RecoveryPhrase, RecoveryRestore, RecoveryRotate, RecoveryUse, RecoveryWord},
    resource::events,
};

/// Words in a line of the phrase as it is shown.
const WORDS_IN_A_LINE: usize = 4;

pub(super) async fn recovery(context: &mut Context, command: Recovery) -> Result<(), CliError> {
    match command {
        Recovery::Write => write(context).await,
        Recovery::Confirm(confirm) => self::confirm(context, &confirm.words).await,
        Recovery::Use { remove, readmit, void } => {
            let phrase = typed(context).await?;
            speak(context, &RecoveryUse { phrase, remove, readmit, void }).await
        }
        Recovery::Restore { at } => restore(context, at).await,
        Recovery::Rotate => rotate(context).await,
    }
}

async fn write(context: &mut Context) -> Result<(), CliError> {
    let phrase = context.client.recovery_phrase().await?;
    show(context, &phrase)
}

fn show(context: &mut Context, phrase: &RecoveryPhrase) -> Result<(), CliError> {
    if context.screen.json {
        return context.screen.value(phrase);
    }
    context.screen.line("Whoever has these words owns your mesh. Write them on paper, in this order:")?;
    for (line, words) in phrase.words.chunks(WORDS_IN_A_LINE).enumerate() {
        let first = line * WORDS_IN_A_LINE + 1;
        let cells: Vec<String> =
            words.iter().enumerate().map(|(offset, word)| format!("{:>2} {word:<10}", first + offset)).collect();
        context.screen.line(format!("  {}", cells.join("").trim_end()))?;
    }
    context.screen.line("Then wipe the secret from this device: mesh recovery confirm")
}

/// The phrase comes by standard input, never by the command line, where others may read.
async fn typed(context: &mut Context) -> Result<String, CliError> {
    if !context.screen.json {
        context.screen.ask("The twelve words of the phrase:")?;
    }
    Ok(Zeroizing::new(read_line().await?).trim().to_owned())
}

/// Enters the mesh of the phrase, and shows meanwhile what the node does.
async fn restore(context: &mut Context, at: Vec<String>) -> Result<(), CliError> {
    let (_, started) = up::ensure_running(context, &Node::default()).await?;
    if started {
        context.screen.note("The node of this device was started.")?;
    }
    let asked = RecoveryRestore { phrase: typed(context).await?, at };
    let client = context.client.clone();
    let mut progress = client.events(None).await?;
    context.screen.note("Looking for a device of the mesh ...")?;
    let exchange = client.recovery_restore(&asked);
    tokio::pin!(exchange);
    let mut watching = true;
    let restored = loop {
        tokio::select! {
            biased;
            event = progress.next(), if watching => match event? {
                Some(event) if event.kind == events::RECOVERY_PROGRESS => context.screen.note(event.text)?,
                Some(_) => {}
                None => watching = false,
            },
            restored = exchange.as_mut() => break restored?,
        }
    };
    if context.screen.json {
        return context.screen.value(&restored);
    }
    let (name, device) = (&restored.name, short(&restored.device));
    context.screen.line(format!("This device is an admin of the mesh again, let in through {name} ({device})."))?;
    context.screen.line("  see its folders:            mesh folder ls")?;
    context.screen.line("  have one here, too:         mesh folder get NAME PATH")?;
    context.screen.line("  shut out what you lost:     mesh recovery use --remove NAME")
}

async fn rotate(context: &mut Context) -> Result<(), CliError> {
    let asked = RecoveryRotate { phrase: typed(context).await? };
    let phrase = context.client.recovery_rotate(&asked).await?;
    context.screen.note("The old phrase owns nothing any more, as soon as your devices have heard of it.")?;
    show(context, &phrase)
}

/// Speaks with the root's word.
async fn speak(context: &mut Context, asked: &RecoveryUse) -> Result<(), CliError> {
    let done = context.client.recovery_use(asked).await?;
    if context.screen.json {
        return context.screen.value(&done);
    }
    context.screen.line(match (&asked.remove, &asked.readmit) {
        (Some(name), _) => format!("{name} is removed, and nobody but the phrase can bring it back."),
        (None, Some(name)) => format!("{name} is a device of this mesh again; it connects by itself."),
        (None, None) => "This device is an admin now, senior to all that another device let in.".to_owned(),
    })
}

async fn confirm(context: &mut Context, given: &[String]) -> Result<(), CliError> {
    let words = match given.is_empty() {
        true => asked(context).await?,
        false => given.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?,
    };
    context.client.recovery_confirm(&RecoveryConfirm { words }).await?;
    if context.screen.json {
        return context.screen.value(&serde_json::json!({ "root_on_disk": false }));
    }
    context.screen.line("Right. The root secret is wiped from this device; the paper is now the only copy.")
}

/// Two words at positions that nobody can prepare for.
async fn asked(context: &mut Context) -> Result<Vec<RecoveryWord>, CliError> {
    let length = context.client.recovery_phrase().await?.words.len();
    let mut words = Vec::new();
    for position in two_positions(length, RandomState::new().build_hasher().finish()) {
        context.screen.ask(&format!("Word {position} of the phrase:"))?;
        let word = read_line().await?.trim().to_lowercase();
        words.push(RecoveryWord { position, word });
    }
    Ok(words)
}

/// Two different positions from 1 to `length`, rising.
fn two_positions(length: usize, random: u64) -> Vec<usize> {
    let length = length.max(2);
    // Fits: both are below the length of a phrase.
    let first = (random % length as u64) as usize;
    let step = (random / length as u64 % (length as u64 - 1)) as usize + 1;
    let mut positions = vec![first + 1, (first + step) % length + 1];
    positions.sort_unstable();
    positions
}

fn parse(text: &str) -> Result<RecoveryWord, CliError> {
    let parsed = text.split_once(':').and_then(|(position, word)| {
        let (position, word) = (position.trim().parse().ok()?, word.trim().to_lowercase());
        (!word.is_empty()).then_some(RecoveryWord { position, word })
    });
    parsed.ok_or_else(|| {
        CliError::new(
            Exit::Usage,
            "bad_words",
            "--words takes words with their positions.",
            "For example, for the third and the seventeenth word: --words 3:WORD,17:WORD",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn two_positions_differ_and_every_pair_can_come() {
        let mut seen = BTreeSet::new();
        for random in 0..10_000 {
            let positions = two_positions(24, random);
            assert!(positions[0] < positions[1] && positions[0] >= 1 && positions[1] <= 24, "{positions:?}");
            seen.insert(positions);
        }
        assert_eq!(seen.len(), 24 * 23 / 2);
    }

    #[test]
    fn words_are_read_with_their_positions() {
        let word = parse(" 3: River ").ok().map(|word| (word.position, word.word.clone()));
        assert_eq!(word, Some((3, "river".to_owned())));
        for wrong in ["river", "x:river", "3:", ":river", "-1:river"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! How long a word to another device and back takes: on a stream of its own, bytes come back as they were sent.

use std::{io, time::Duration};

use meshwork_protocol::limits;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

/// Bytes of one word.
const WORD: usize = 8;

/// Sends words one after the other, each when the one before is back; gives the times.
pub async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, times: usize) -> io::Result<Vec<Duration>> {
    let mut taken = Vec::new();
    for number in 0..times.min(limits::PINGS) as u64 {
        let (word, mut back) = (number.to_be_bytes(), [0; WORD]);
        let begin = Instant::now();
        let turn = async {
            stream.write_all(&word).await?;
            stream.flush().await?;
            stream.read_exact(&mut back).await
        };
        timeout(limits::PING, turn).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if back != word {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "something else came back"));
        }
        taken.push(begin.elapsed());
    }
    Ok(taken)
}

/// Sends words back until there are no more.
pub async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    for _ in 0..limits::PINGS {
        let mut word = [0; WORD];
        let turn = async {
            if let Err(error) = stream.read_exact(&mut word).await {
                return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
            }
            stream.write_all(&word).await?;
            stream.flush().await.map(|()| true)
        };
        if !timeout(limits::PING, turn).await.map_err(|_| io::ErrorKind::TimedOut)?? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn words_come_back_and_nothing_else_counts() {
        let (near, far) = duplex(64);
        let (times, answered) = tokio::join!(ask(near, 5), answer(far));
        assert_eq!(times.expect("they come back").len(), 5);
        answered.expect("until there are no more");
        let (near, mut far) = duplex(64);
        let liar = async {
            let mut word = [0; WORD];
            far.read_exact(&mut word).await.expect("a word");
            far.write_all(&[9; WORD]).await.expect("another one");
        };
        let (times, ()) = tokio::join!(ask(near, 1), liar);
        assert_eq!(times.expect_err("something else").kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_or_has_no_end_is_left() {
        let (near, _far) = duplex(64);
        assert_eq!(ask(near, 1).await.expect_err("silence").kind(), io::ErrorKind::TimedOut);
        let (near, far) = duplex(64);
        assert_eq!(answer(far).await.expect_err("silence").kind(), io::ErrorKind::TimedOut);
        drop(near);
        let (mut near, far) = duplex(1 << 20);
        near.write_all(&vec![1; WORD * (limits::PINGS + 1)]).await.expect("sent");
        answer(far).await.expect("as many as there may be");
        let mut back = Vec::new();
        near.read_to_end(&mut back).await.expect("the end");
        assert_eq!(back.len(), WORD * limits::PINGS);
    }
}

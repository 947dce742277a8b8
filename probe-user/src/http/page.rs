//! A page on its way out. Its memory goes back to the runner when the last client has it.

use std::sync::Arc;

use crate::collector::runner::Runner;
use crate::metric::Format;

pub(super) struct Page {
    text: Vec<u8>,
    runner: Arc<Runner>,
}

impl Page {
    pub(super) fn make(runner: Arc<Runner>, format: Format) -> Self {
        Self { text: runner.scrape(format), runner }
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.runner.recycle(std::mem::take(&mut self.text));
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;
    use crate::collector::runner::Limits;
    use crate::collector::unavailable::Unavailable;

    #[test]
    fn the_memory_of_a_page_is_used_again_when_the_last_client_has_it() {
        let collector = Arc::new(Unavailable::new("tcp", "no programs"));
        let runner = Arc::new(Runner::new(vec![collector], Limits::default()));
        let make = || Bytes::from_owner(Page::make(Arc::clone(&runner), Format::Text004));
        // The first page does not know its size.
        drop(make());
        let page = make();
        let memory = page.as_ptr();
        let late = page.clone();
        drop(page);
        let next = make();
        assert_ne!(next.as_ptr(), memory, "a client still reads it");
        drop(late);
        assert_eq!(make().as_ptr(), memory);
    }
}

//! What the last panic of a thread said: in a world, a panic is a violation with these words.

use std::cell::RefCell;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics of worlds are kept instead of printed.
pub fn keep() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Outside of worlds nobody would ask for it.
        if madsim::runtime::Handle::try_current().is_err() {
            return usual(info);
        }
        let message = match std::env::var_os("RUST_BACKTRACE") {
            Some(_) => format!("{info}\n{}", std::backtrace::Backtrace::force_capture()),
            None => info.to_string(),
        };
        LAST.with(|last| {
            last.borrow_mut().get_or_insert(message);
        });
    }));
}

/// What the first panic since the last call said.
pub fn take() -> String {
    let last = LAST.with(|last| last.borrow_mut().take());
    last.unwrap_or_else(|| "panicked without a word".to_owned())
}

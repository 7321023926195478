//! Writes the descriptor set of our .proto files to standard output, for `interop/wire_compat.py`.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().lock().write_all(proto::FILE_DESCRIPTOR_SET)
}

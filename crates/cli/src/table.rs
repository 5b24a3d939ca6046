//! Tables for people.

use std::borrow::Cow;

/// Longest cell, in characters: one name must not make every line as long as itself.
const CELL_MAX: usize = 160;

/// Lays rows out in columns; the first row is the head. Of a very long cell both ends are shown.
pub(crate) fn table(rows: &[Vec<String>], numbers: &[usize]) -> String {
    let shown = |row: &Vec<String>| -> Vec<String> {
        let cells = row.iter().map(|cell| shortened(&printable(cell)));
        cells.collect()
    };
    let rows: Vec<_> = rows.iter().map(shown).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            line.push_str(&if numbers.contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A text from a file as a terminal may have it: what would move its cursor or change its colours is escaped.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|character| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    });
    Cow::Owned(escaped.collect())
}

fn shortened(cell: &str) -> String {
    let len = cell.chars().count();
    if len <= CELL_MAX {
        return cell.to_owned();
    }
    let front = cell.chars().take(CELL_MAX / 2 - 1);
    let back = cell.chars().skip(len - CELL_MAX / 2);
    front.chain(['…']).chain(back).collect()
}

/// A row of a table.
pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            row(["name", "bytes"]),
            row(["a", "7"]),
            row(["longer", "1234567"]),
        ];
        assert_eq!(
            table(&rows, &[1]),
            "name      bytes\na             7\nlonger  1234567\n"
        );
    }

    #[test]
    fn a_name_of_any_length_and_of_any_characters_is_a_cell() {
        let name = format!("first{}last", "x".repeat(100_000));
        let text = table(&[row(["name", "bytes"]), row([&name, "7"])], &[1]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].chars().count(), CELL_MAX + "  bytes".len());
        assert!(lines[1].starts_with("first") && lines[1].contains("last "));

        let text = table(&[row(["name"]), row(["\u{1b}[31mred\r\n\u{9b}é"])], &[]);
        assert_eq!(text, "name\n\\u{1b}[31mred\\r\\n\\u{9b}é\n");
    }
}

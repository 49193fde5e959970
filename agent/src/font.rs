//! A machine's name in letters that can be read across a room.

/// Rows of a letter.
const ROWS: usize = 5;

/// The text in large letters, wrapped before a capital so that no line is wider than `columns`.
/// Characters without a shape are left out.
pub fn banner(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut row = vec![String::new(); ROWS];
    for word in words(text) {
        let shapes: Vec<[&str; ROWS]> = word.chars().filter_map(shape).collect();
        let width: usize = shapes.iter().map(|s| s[0].len() + 1).sum();
        if !row[0].is_empty() && row[0].len() + width > columns {
            flush(&mut lines, &mut row);
        }
        for shape in shapes {
            if row[0].len() + shape[0].len() > columns {
                flush(&mut lines, &mut row);
            }
            for (line, part) in row.iter_mut().zip(shape) {
                line.push_str(part);
                line.push(' ');
            }
        }
    }
    flush(&mut lines, &mut row);
    lines
}

fn flush(lines: &mut Vec<String>, row: &mut [String]) {
    if row.iter().all(String::is_empty) {
        return;
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    for line in row {
        lines.push(line.trim_end().to_owned());
        line.clear();
    }
}

/// Splits `CensusAbleQualityParent` before each capital.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if !c.is_uppercase() => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    words
}

#[rustfmt::skip]
fn shape(c: char) -> Option<[&'static str; ROWS]> {
    Some(match c.to_ascii_uppercase() {
        'A' => [" ## ", "#  #", "####", "#  #", "#  #"],
        'B' => ["### ", "#  #", "### ", "#  #", "### "],
        'C' => [" ###", "#   ", "#   ", "#   ", " ###"],
        'D' => ["### ", "#  #", "#  #", "#  #", "### "],
        'E' => ["####", "#   ", "### ", "#   ", "####"],
        'F' => ["####", "#   ", "### ", "#   ", "#   "],
        'G' => [" ###", "#   ", "# ##", "#  #", " ###"],
        'H' => ["#  #", "#  #", "####", "#  #", "#  #"],
        'I' => ["###", " # ", " # ", " # ", "###"],
        'J' => ["   #", "   #", "   #", "#  #", " ## "],
        'K' => ["#  #", "# # ", "##  ", "# # ", "#  #"],
        'L' => ["#   ", "#   ", "#   ", "#   ", "####"],
        'M' => ["#   #", "## ##", "# # #", "#   #", "#   #"],
        'N' => ["#   #", "##  #", "# # #", "#  ##", "#   #"],
        'O' => [" ## ", "#  #", "#  #", "#  #", " ## "],
        'P' => ["### ", "#  #", "### ", "#   ", "#   "],
        'Q' => [" ## ", "#  #", "#  #", "# ##", " ###"],
        'R' => ["### ", "#  #", "### ", "# # ", "#  #"],
        'S' => [" ###", "#   ", " ## ", "   #", "### "],
        'T' => ["#####", "  #  ", "  #  ", "  #  ", "  #  "],
        'U' => ["#  #", "#  #", "#  #", "#  #", " ## "],
        'V' => ["#   #", "#   #", " # # ", " # # ", "  #  "],
        'W' => ["#   #", "#   #", "# # #", "## ##", "#   #"],
        'X' => ["#   #", " # # ", "  #  ", " # # ", "#   #"],
        'Y' => ["#   #", " # # ", "  #  ", "  #  ", "  #  "],
        'Z' => ["####", "  # ", " #  ", "#   ", "####"],
        '0' => [" ## ", "#  #", "#  #", "#  #", " ## "],
        '1' => [" # ", "## ", " # ", " # ", "###"],
        '2' => ["### ", "   #", " ## ", "#   ", "####"],
        '3' => ["### ", "   #", " ## ", "   #", "### "],
        '4' => ["#  #", "#  #", "####", "   #", "   #"],
        '5' => ["####", "#   ", "### ", "   #", "### "],
        '6' => [" ## ", "#   ", "### ", "#  #", " ## "],
        '7' => ["####", "   #", "  # ", " #  ", " #  "],
        '8' => [" ## ", "#  #", " ## ", "#  #", " ## "],
        '9' => [" ## ", "#  #", " ###", "   #", " ## "],
        '-' => ["   ", "   ", "###", "   ", "   "],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_as_wide_in_each_row() {
        for c in ('A'..='Z').chain('0'..='9').chain(['-']) {
            let rows = shape(c).unwrap();
            assert!(rows.iter().all(|r| r.len() == rows[0].len()), "{c}");
        }
    }

    #[test]
    fn a_name_fits_the_screen() {
        let lines = banner("CensusAbleQualityParent-2", 78);
        assert!(lines.iter().all(|l| l.len() <= 78), "{lines:#?}");
        assert_eq!(lines.len(), 2 * ROWS + 1);
        assert!(banner("\u{1b}[2J", 78).iter().all(|l| !l.contains('\u{1b}')));
        assert!(banner(&"x".repeat(500), 78).iter().all(|l| l.len() <= 78));
        assert!(banner("", 78).is_empty());
    }
}

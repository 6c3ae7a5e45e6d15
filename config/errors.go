package config

// An Error is one thing wrong (or odd, in [File.Warnings]) at one place. It never holds key text.
type Error struct {
	Pos     Position
	Message string // what is wrong and what was expected
	Hint    string // what to do; may be empty
	Err     error  // the cause, such as fs.ErrNotExist; may be nil

	line  string // the source line without secrets; empty where Pos has no line
	caret int    // column of the caret within line, from 1
}

// Errors are all errors of a file, in file order. It is never empty where it is returned as an error: find it with
// errors.As, which tells a bad configuration from everything else.
type Errors []*Error

// ErrorAt makes an error about a place in f found out later, such as a device that cannot be made, with its source line.
func (f *File) ErrorAt(pos Position, message, hint string, cause error) *Error {
	return f.source.errorAt(pos, message, hint, cause)
}

package model

import (
	"encoding/json"
)

// argList is the text of a program's arguments.
func argList(args []string) Value {
	b, err := json.Marshal(args)
	if err != nil {
		panic(err) // strings always encode
	}
	return Value(b)
}

// Command horn checks protocol models in the part of ProVerif's language that culvert's are written in, by ProVerif's
// method: Horn clauses saturated by resolution. It exists because no prover could be had where the models were
// written; it is not ProVerif. What it proves holds for the clauses, and so for the model, if it has no error
// itself. What it cannot prove may be an attack or an artefact of the abstraction: it prints the derivation.
//
//	horn [-v] [-limit N] [-lib FILE]... FILE
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	verbose := flag.Bool("v", false, "print the derivation of what is not proved")
	limit := flag.Int("limit", 100000, "clauses to process for one query")
	only := flag.Int("query", 0, "check this query alone, counted from 1")
	stats := flag.Bool("stats", false, "print the number of clauses")
	var libs []string
	flag.Func("lib", "a library of declarations, read first", func(s string) error { libs = append(libs, s); return nil })
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	m := newModel()
	for _, name := range append(libs, flag.Arg(0)) {
		src, err := os.ReadFile(name)
		if err == nil {
			err = parse(m, name, string(src))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "horn:", err)
			os.Exit(2)
		}
	}
	if m.main == nil {
		fmt.Fprintln(os.Stderr, "horn: no process in", flag.Arg(0))
		os.Exit(2)
	}
	for i, q := range m.queries {
		if *only != 0 && *only != i+1 {
			continue
		}
		v, err := check(m, q, *limit)
		if err != nil {
			fmt.Fprintln(os.Stderr, "horn:", flag.Arg(0)+":", err)
			os.Exit(2)
		}
		fmt.Printf("Query %s %s.\n", v.text, v.result)
		if *stats {
			fmt.Printf("  %d clauses at first, %d processed\n", v.initial, v.steps)
		}
		if *verbose && v.derivation != nil {
			fmt.Println(indent(explain(v.derivation)))
		}
	}
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}

package culvert_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mayLeaveOut are the reasons of skips that stand also where nothing may skip: the test runs somewhere else then (in a guest, as a child, in a
// step of its own), or is of something else.
var mayLeaveOut = regexp.MustCompile(`^(this is the guest|runs in the guests? of Test|runs as a child of Test|is of the (host's kernel|source)$|its guests want both processors for minutes: |it judges rates and wants the machine to itself: )`)

// Tests skip by lab.Skip and what calls it, which fail where nothing may skip, or under -short.
func TestSkips(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || path == "internal/lab/need.go" {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		for _, at := range plainSkips(file) {
			t.Errorf("%s: skips where nothing may: use lab.Skip, or say testing.Short() in the condition", set.Position(at))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// plainSkips are the calls of a test's own Skip, Skipf and SkipNow without a reason that stands.
func plainSkips(file *ast.File) (list []token.Pos) {
	short := make(map[ast.Node]bool) // what is done under -short alone
	ast.Inspect(file, func(n ast.Node) bool {
		if i, ok := n.(*ast.IfStmt); ok && isShort(i.Cond) {
			short[i.Body] = true
		}
		return true
	})
	ast.Inspect(file, func(n ast.Node) bool {
		if short[n] {
			return false
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || f.Sel.Name != "Skip" && f.Sel.Name != "Skipf" && f.Sel.Name != "SkipNow" {
			return true
		}
		of, ok := f.X.(*ast.Ident)
		if !ok || of.Name == "lab" || !regexp.MustCompile(`^(t|b|f|tb)$`).MatchString(of.Name) {
			return true
		}
		if len(call.Args) > 0 {
			if why, ok := call.Args[0].(*ast.BasicLit); ok && mayLeaveOut.MatchString(strings.Trim(why.Value, "\"`")) {
				return true
			}
		}
		list = append(list, call.Pos())
		return true
	})
	return list
}

// isShort reports whether a condition is testing.Short(), or that and something else.
func isShort(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return isShort(e.X)
	case *ast.BinaryExpr:
		return e.Op == token.LAND && (isShort(e.X) || isShort(e.Y))
	case *ast.CallExpr:
		f, ok := e.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		of, ok := f.X.(*ast.Ident)
		return ok && of.Name == "testing" && f.Sel.Name == "Short"
	}
	return false
}

// The rule finds what it is there for.
func TestPlainSkips(t *testing.T) {
	for body, want := range map[string]int{
		`t.Skip("needs root")`:                                       1,
		`t.Skipf("needs %s", "root")`:                                1,
		`t.SkipNow()`:                                                1,
		`lab.Skip(t, "needs root")`:                                  0,
		`t.Skip("this is the guest")`:                                0,
		`if testing.Short() { t.Skip("starts a guest") }`:            0,
		`if testing.Short() && x { t.Skip("starts a guest") }`:       0,
		`if testing.Short() || x { t.Skip("starts a guest") }`:       1,
		`if !testing.Short() { t.Skip("starts a guest") }`:           1,
		`if testing.Short() { return } else { t.Skip("otherwise") }`: 1,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "", "package p; func f() { "+body+" }", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(plainSkips(file)); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
}

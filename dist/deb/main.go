// Deb builds culvert's Debian package from this checkout:
//
//	go run ./dist/deb                    # culvert_VERSION_ARCH.deb for this machine's processor, in the current folder
//	go run ./dist/deb -arch arm64 -o /tmp
//
// It needs Go and dpkg-deb. The same commit gives the same bytes, wherever it is checked out: files have the time of the commit, or of
// SOURCE_DATE_EPOCH, and belong to root. Manual pages and completions come from the program's own help and from docs/.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
)

func main() {
	arch := flag.String("arch", runtime.GOARCH, "Debian's and Go's name of the processor: amd64 or arm64")
	out := flag.String("o", ".", "folder for the package")
	level := flag.Int("z", 6, "xz's level, 0 to 9")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	path, err := build(".", *out, *arch, *level)
	if err != nil {
		fmt.Fprintln(os.Stderr, "deb:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

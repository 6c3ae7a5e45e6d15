// Package culvert holds no code: the module's program is culvert/cmd/culvert. The test beside this file keeps the
// direction of imports between the module's packages.
package culvert

package setup

import (
	"errors"
	"fmt"
)

// errNeedsLinux is of what no other system has, or culvert does not know of any other.
var errNeedsLinux = fmt.Errorf("needs Linux: %w", errors.ErrUnsupported)

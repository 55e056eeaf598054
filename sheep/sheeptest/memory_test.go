package sheeptest_test

import (
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/sheeptest"
)

func TestMemory(t *testing.T) {
	sheeptest.Objects(t, func(*testing.T) sheep.Objects { return sheeptest.NewMemory() })
}

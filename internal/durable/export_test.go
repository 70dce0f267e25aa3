package durable_test

import (
	"testing"

	"github.com/hallmark-iot/hallmark/internal/blob/exporttest"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger"
)

func TestADirectoryKeepsFiles(t *testing.T) {
	exporttest.Run(t, true, func(t *testing.T) (place, again ledger.Exporter) {
		t.Helper()
		dir := t.TempDir()
		return durable.Files{Dir: dir}, durable.Files{Dir: dir}
	})
}

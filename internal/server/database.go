package server

import (
	"context"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
)

// openDatabase opens the instance's database.
func openDatabase(ctx context.Context, l Layout, _ Config) (*store.DB, error) {
	return sqlite.Open(ctx, l.Database())
}

package s3

import (
	"context"

	"github.com/minio/minio-go/v7"
)

// Left lists everything that is there, unfinished uploads too.
func (a Artifacts) Left(ctx context.Context) (out []string, err error) {
	for o := range a.at.client.ListObjects(ctx, a.at.name, minio.ListObjectsOptions{Prefix: a.at.prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, o.Err
		}
		out = append(out, o.Key)
	}
	for u := range a.at.client.ListIncompleteUploads(ctx, a.at.name, a.at.prefix, true) {
		if u.Err != nil {
			return nil, u.Err
		}
		out = append(out, u.Key+" unfinished")
	}
	return out, nil
}

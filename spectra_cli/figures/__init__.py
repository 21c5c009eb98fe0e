"""Tables -> pictures: figures drawn with matplotlib, and one page that holds them all."""

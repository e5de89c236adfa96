"""What a person types: `pgweir` and `kubectl pgweir`. These may use both packages; nothing imports them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("grants", "0006_shows_everything")]

    operations = [
        migrations.AddField(
            model_name="allowance",
            name="tokens_excess",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
